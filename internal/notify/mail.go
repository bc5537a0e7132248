package notify

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"

	gomail "github.com/wneessen/go-mail"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/outbound"
)

// mail are the options of the kind mail.
type mail struct {
	Server string   `json:"server" doc:"the SMTP server, host:port: smtp.example.com:587"`
	TLS    string   `json:"tls" doc:"starttls: the server must offer it (port 587); tls: from the first byte (port 465); none: in the clear, without a password. Default: starttls"`
	From   string   `json:"from" doc:"the address that writes"`
	To     []string `json:"to" doc:"the addresses that are written to"`
	User   string   `json:"user,omitempty" doc:"who logs in at the server, with the secret password"`
	Helo   string   `json:"helo,omitempty" doc:"what we call ourselves to the server"`
	way
}

// The ways of the option tls.
const (
	startTLS = "starttls"
	fullTLS  = "tls"
	noTLS    = "none"
)

func (o mail) check() error {
	if host, port, err := net.SplitHostPort(o.Server); err != nil || host == "" || port == "" {
		return &FieldError{"server", "it is no host with a port", "as in smtp.example.com:587"}
	}
	if o.TLS != startTLS && o.TLS != fullTLS && o.TLS != noTLS {
		return &FieldError{"tls", fmt.Sprintf("%q is no way to encrypt", o.TLS), "starttls, tls or none"}
	}
	if o.TLS == noTLS && o.User != "" {
		return &FieldError{"tls", "the password would cross the network in the clear", "starttls or tls, with ca if the server's certificate is from a CA of your own"}
	}
	if err := o.people(); err != nil {
		return err
	}
	return o.way.check()
}

// people checks who writes, and who is written to.
func (o mail) people() error {
	if len(o.To) == 0 {
		return &FieldError{"to", "nobody is written to", "to: [ops@example.com]"}
	}
	m := gomail.NewMsg()
	if err := m.From(o.From); err != nil {
		return &FieldError{"from", "it is no mail address", "as in certfarm@example.com"}
	}
	for i, to := range o.To {
		if err := m.AddTo(to); err != nil {
			return &FieldError{fmt.Sprintf("to[%d]", i), "it is no mail address", "as in ops@example.com"}
		}
	}
	return nil
}

// Mail is a mail to some people, over SMTP.
func Mail() Kind {
	return define(Kind{
		Name: "mail", Doc: "a mail, over SMTP",
		Secrets: []Setting{{Name: "password", Doc: "the password of user", Optional: true}},
	}, mail{TLS: startTLS}, func(o mail, s Setup) (Sender, error) {
		return o.mailer(farm.NewSecret([]byte(outbound.Word(s.Secrets["password"]))))
	})
}

// A mailer writes mails. A connection is made for each.
type mailer struct {
	mail
	host    string
	options []gomail.Option
}

func (o mail) mailer(password farm.Secret) (Sender, error) {
	host, service, err := net.SplitHostPort(o.Server)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(service)
	if err != nil {
		return nil, err
	}
	g, err := outbound.NewGuard(o.AllowPrivate)
	if err != nil {
		return nil, err
	}
	roots, err := outbound.NewTransport(o.CA, "")
	if err != nil {
		return nil, err
	}
	config := roots.TLSClientConfig
	config.ServerName = host
	dialer := &net.Dialer{Timeout: within, ControlContext: g.Control}
	dial, policy := dialer.DialContext, gomail.TLSMandatory
	switch o.TLS {
	case fullTLS:
		dial, policy = (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext, gomail.NoTLS // it is there already
	case noTLS:
		policy = gomail.NoTLS
	}
	toServer := func(ctx context.Context, network, _ string) (net.Conn, error) { // the library has no brackets for an IPv6 address
		return dial(ctx, network, o.Server)
	}
	all := []gomail.Option{
		gomail.WithPort(port), gomail.WithTimeout(within), gomail.WithTLSConfig(config), gomail.WithTLSPolicy(policy),
		gomail.WithDialContextFunc(toServer), gomail.WithoutNoop(),
	}
	if o.Helo != "" {
		all = append(all, gomail.WithHELO(o.Helo))
	}
	if o.User != "" {
		all = append(all, gomail.WithUsername(o.User), gomail.WithPassword(string(password.Reveal())), gomail.WithSMTPAuth(gomail.SMTPAuthPlain))
	}
	return mailer{o, host, all}, nil
}

// Send is Sender's. The message's id is the mail's, and all mails of a notice are one
// conversation, so that one which comes twice is seen as such.
func (w mailer) Send(ctx context.Context, m Message) error {
	c, err := gomail.NewClient(w.host, w.options...)
	if err != nil {
		return err
	}
	letter, err := w.letter(m)
	if err != nil {
		return err
	}
	return c.DialAndSendWithContext(ctx, letter)
}

func (w mailer) letter(m Message) (*gomail.Msg, error) {
	letter := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := letter.From(w.From); err != nil {
		return nil, err
	}
	if err := letter.To(w.To...); err != nil {
		return nil, err
	}
	_, domain, _ := strings.Cut(letter.GetAddrHeader(gomail.HeaderFrom)[0].Address, "@")
	letter.SetMessageIDWithValue(m.ID + "@" + domain)
	letter.SetGenHeader(gomail.HeaderReferences, "<"+m.Notice+"@"+domain+">")
	letter.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no answer by a machine
	if m.Severity == farm.ForPage && m.State != Over {
		letter.SetImportance(gomail.ImportanceHigh)
	}
	letter.SetDateWithValue(m.At)
	letter.Subject(m.Title)
	letter.SetBodyString(gomail.TypeTextPlain, m.Text+"\n")
	return letter, nil
}
