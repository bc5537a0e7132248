package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// A Kind is one way to tell people, as farm.yaml names it.
type Kind struct {
	Name, Doc string
	Secrets   []Setting
	Options   []Setting

	check func(options []byte, secrets []string) (canonical []byte, err error)
	open  func(options []byte, s Setup) (Sender, error)
}

// A Setting is one option, or one secret.
type Setting struct {
	Name     string `json:"name"`
	Doc      string `json:"doc"`
	Optional bool   `json:"optional"`
}

// A Setup is what a Sender is made of, beside its options.
type Setup struct {
	Secrets map[string]farm.Secret // by the kind's name for them
	Proxy   string                 // URL of the proxy for outbound HTTP; empty: none
	Helper  []string               // argv of a process that speaks to the services of kind shoutrrr
}

// Kinds lists them. To add one, write its file and name it here.
func Kinds() []Kind {
	return []Kind{Mail(), PagerDuty(), Shoutrrr(), Slack(), Teams(), Webhook()}
}

// KindOf finds a kind by its name.
func KindOf(name string) (Kind, bool) {
	all := Kinds()
	i := slices.IndexFunc(all, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return all[i], true
}

// Check reads options (JSON) and the names of the secrets that are given, and returns the
// options with every default filled in. An error that is a *FieldError names the option.
func (k Kind) Check(options []byte, secrets []string) ([]byte, error) {
	for _, s := range k.Secrets {
		if !s.Optional && !slices.Contains(secrets, s.Name) {
			return nil, &FieldError{"", "the secret " + s.Name + " is missing: " + s.Doc, "secrets: {" + s.Name + ": {secret: NAME}}, with NAME given to `certfarm secret set`"}
		}
	}
	return k.check(options, secrets)
}

// Open makes a sender from options that Check returned. What it sends goes to public
// addresses alone, and to those that allow_private names; its errors hold no secret.
func (k Kind) Open(options []byte, s Setup) (Sender, error) {
	inner, err := k.open(options, s)
	if err != nil {
		return nil, discreet{secrets: s.Secrets}.about(err)
	}
	return discreet{inner, s.Secrets}, nil
}

// A FieldError is a mistake in one option; Field is empty where one is missing.
type FieldError struct{ Field, Problem, Hint string }

// Error says what is wrong with which option.
func (e *FieldError) Error() string { return strings.TrimPrefix(e.Field+": "+e.Problem, ": ") }

// Option is what config shows at the option's line.
func (e *FieldError) Option() (field, problem, hint string) { return e.Field, e.Problem, e.Hint }

// options is what a kind's option struct offers.
type options interface{ check() error }

// define describes a kind whose options are C, read over the defaults and strictly.
func define[C options](k Kind, defaults C, open func(C, Setup) (Sender, error)) Kind {
	read := func(raw []byte) (C, error) {
		c := defaults // its lists are empty: none is shared
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			return c, fmt.Errorf("options of %s: %w", k.Name, err)
		}
		return c, c.check()
	}
	k.Options = settings(reflect.TypeFor[C]())
	k.check = func(raw []byte, _ []string) ([]byte, error) {
		c, err := read(raw)
		if err != nil {
			return nil, err
		}
		return json.Marshal(c)
	}
	k.open = func(raw []byte, s Setup) (Sender, error) {
		c, err := read(raw)
		if err != nil {
			return nil, err
		}
		return open(c, s)
	}
	return k
}

// settings are the fields of an option struct, those of the ones inside it too.
func settings(t reflect.Type) (all []Setting) {
	for f := range t.Fields() {
		if f.Anonymous {
			all = append(all, settings(f.Type)...)
			continue
		}
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, Setting{name, f.Tag.Get("doc"), rest == "omitempty"})
	}
	return all
}

// way is how a receiver is reached, beside its own options.
type way struct {
	AllowPrivate []string `json:"allow_private,omitempty" doc:"networks that it may lie in although they are not public, as in 10.1.2.0/24"`
	CA           string   `json:"ca,omitempty" doc:"certificates, PEM, that vouch for the server; empty: the system's"`
}

func (w way) check() error {
	_, err := outbound.NewGuard(w.AllowPrivate)
	if wide, ok := errors.AsType[*outbound.WideError](err); ok {
		return &FieldError{fmt.Sprintf("allow_private[%d]", wide.At), wide.Error(), "as in 10.1.2.0/24 or 192.168.1.7"}
	}
	if _, err := outbound.NewTransport(w.CA, ""); err != nil {
		return &FieldError{"ca", "it holds no PEM certificate", "the text of the certificate, not its file: `ca: |` and the lines below"}
	}
	return err
}

// within is how long one message may take on its way.
const within = 30 * time.Second

// client makes a client that goes no further than the way allows.
func (w way) client(proxy string) (*http.Client, error) {
	g, err := outbound.NewGuard(w.AllowPrivate)
	if err != nil {
		return nil, err
	}
	t, err := outbound.NewTransport(w.CA, proxy)
	if err != nil {
		return nil, err
	}
	t.DisableKeepAlives = true // there is one message now and then
	c := outbound.NewClient(g.Transport(t))
	c.Timeout = within
	return c, nil
}

// address checks a URL that a receiver is called at.
func address(text, field string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return &FieldError{field, "it is no URL to call", "as in https://hooks.example.org/certfarm, without a user or password in it"}
	}
	return nil
}
