package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"go.yaml.in/yaml/v4"
)

// A list is texts, or one text in place of a list of one.
type list []string

func (l *list) readFrom(r *reader, p *place) {
	*l = list{}
	if p.val.Kind != yaml.SequenceNode {
		if s, ok := r.text(p); ok {
			*l = list{s}
		}
		return
	}
	for i, n := range p.val.Content {
		s, _ := r.text(p.index(i, n))
		*l = append(*l, s)
	}
}

// A duration is a length of time, written as Go writes it and with d for days.
type duration time.Duration

func (d *duration) readFrom(r *reader, p *place) {
	if p.val.Tag == intTag {
		r.say(p, "this length of time has no unit", "write "+p.val.Value+"s for seconds")
		return
	}
	s, ok := r.text(p)
	if !ok {
		return
	}
	got, err := parseDuration(s)
	if err != nil {
		r.say(p, quote(s)+" is no length of time", "write it as 30s, 5m, 12h or 7d")
	}
	*d = duration(got)
}

// parseDuration reads "90s", "1h30m", "7d", "1d12h".
func parseDuration(s string) (time.Duration, error) {
	before, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		d, err := time.ParseDuration(s)
		if err == nil && d < 0 {
			err = errors.New("it is negative")
		}
		return d, err
	}
	days, err := strconv.ParseUint(before, 10, 16)
	if err != nil || rest == "" {
		return time.Duration(days) * 24 * time.Hour, err
	}
	d, err := parseDuration(rest)
	return time.Duration(days)*24*time.Hour + d, err
}

// A rate is so many in a length of time: "300 per 3h".
type rate farm.Rate

func (v *rate) readFrom(r *reader, p *place) {
	s, ok := r.text(p)
	if !ok {
		return
	}
	number, per, _ := strings.Cut(s, " per ")
	n, err := strconv.ParseUint(number, 10, 31)
	d, bad := parseDuration(strings.TrimSpace(per))
	if err != nil || bad != nil || n == 0 || d <= 0 {
		r.say(p, quote(s)+" is no limit", "write so many in so long: 300 per 3h, 50 per 7d")
		return
	}
	*v = rate{Count: int(n), Per: d}
}

// A share is a number of targets: 2, 5%, or max(1, 5%).
type share farm.Share

var atLeast = regexp.MustCompile(`^max\((\d{1,9}), *([0-9.]{1,9})%\)$`)

func (s *share) readFrom(r *reader, p *place) {
	if !r.is(p, yaml.ScalarNode, "a number of targets") {
		return
	}
	got, err := parseShare(p.val.Value)
	if err != nil || p.val.Tag != intTag && p.val.Tag != textTag {
		r.say(p, "this is no number of targets", "write 2, 5% or max(1, 5%)")
	}
	*s = share(got)
}

func parseShare(s string) (farm.Share, error) {
	var got farm.Share
	if m := atLeast.FindStringSubmatch(s); m != nil {
		got.Least, _ = strconv.Atoi(m[1])
		s = m[2] + "%"
	}
	number, percent := strings.CutSuffix(s, "%")
	if !percent {
		n, err := strconv.ParseUint(s, 10, 31)
		return farm.Share{Count: int(n)}, err
	}
	p, err := strconv.ParseFloat(number, 64)
	if err == nil && (math.IsNaN(p) || p < 0 || p > 100) {
		err = fmt.Errorf("%s is not from 0%% to 100%%", s)
	}
	if p == 0 {
		return farm.Share{Count: got.Least}, err
	}
	got.Percent = p
	return got, err
}

// A secret says where a secret stands.
type secret farm.SecretRef

// secretFields are the ways to name a secret.
var secretFields = []string{"secret", "file", "env"}

// readFrom never lets a secret that stands in the file itself be shown.
func (s *secret) readFrom(r *reader, p *place) {
	if p.val.Kind != yaml.MappingNode {
		r.src.hide(p.val)
		name := "secret"
		if p.key != nil {
			name = p.key.Value
		}
		r.say(p, "a secret must not stand in farm.yaml",
			"set it with `certfarm secret set NAME`, write `"+name+": {secret: NAME}` here, and change the secret: it has been in a file")
		return
	}
	list := r.entries(p)
	for _, e := range list {
		s.set(r, p.child(e.key, e.val))
	}
	if len(list) != 1 && !r.full {
		r.say(p, "a secret is named in one way, not in "+strconv.Itoa(len(list)), "write {secret: NAME}")
	}
}

func (s *secret) set(r *reader, p *place) {
	switch field := p.key.Value; field {
	case "secret":
		s.sealed(r, p)
	case "file", "env":
		if !r.inline {
			r.say(p, "{"+field+": …} may not stand here: whoever edits farm.yaml could read the controller's files",
				"set it with `certfarm secret set NAME` and write {secret: NAME}")
			return
		}
		got, _ := r.text(p)
		if field == "file" {
			s.File = got
		} else {
			s.Env = got
		}
	default:
		r.src.hide(p.val)
		r.unknown(p, secretFields)
	}
}

// sealed reads the name of a sealed secret. What cannot be a name may be the
// secret itself.
func (s *secret) sealed(r *reader, p *place) {
	if p.val.Kind != yaml.ScalarNode || !validName(p.val.Value) {
		r.src.hide(p.val)
		r.say(p, "this is no name of a secret", "names have letters, digits, dots, dashes and underscores; the secret itself must not stand here")
		return
	}
	s.Secret = p.val.Value
	if r.secrets[s.Secret] == nil {
		r.secrets[s.Secret] = p
	}
}

// Validations are some, or one in place of a list of one.
type validations []validation

func (v *validations) readFrom(r *reader, p *place) {
	if p.val.Kind != yaml.SequenceNode {
		*v = make(validations, 1)
		r.value(p, reflect.ValueOf(&(*v)[0]).Elem())
		return
	}
	*v = make(validations, len(p.val.Content))
	if len(p.val.Content) == 0 {
		r.say(p, "there is no validation", "take the line out: names are then proven by http-01 via gateway")
	}
	for i, n := range p.val.Content {
		r.value(p.index(i, n), reflect.ValueOf(&(*v)[i]).Elem())
	}
}

// A selector chooses nodes by name or by labels.
type selector struct {
	located
	names  []string
	labels map[string]string
}

func (s *selector) readFrom(r *reader, p *place) {
	if p.val.Kind != yaml.MappingNode {
		(*list)(&s.names).readFrom(r, p)
		return
	}
	s.labels = map[string]string{}
	for _, e := range r.entries(p) {
		if value, ok := r.text(p.child(e.key, e.val)); ok {
			s.labels[e.key.Value] = value
		}
	}
	if len(p.val.Content) == 0 {
		r.say(p, "no label is named", "write {pool: web}, or the names of nodes")
	}
}

var nameRule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$`)

// validName reports whether s can name a thing of the farm: it stands in paths,
// in URLs and between the signs of a target's full name.
func validName(s string) bool { return nameRule.MatchString(s) }
