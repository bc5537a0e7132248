package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Options are a target's options as JSON: only its kind knows what they mean.
type options struct {
	located
	json []byte
	bad  bool // they could not be read; the kind is not asked
}

// text is the options as JSON, also where there are none.
func (o options) text() []byte {
	if o.json == nil {
		return []byte("{}")
	}
	return o.json
}

// credential are names of options whose value may be one. A `key` is a path.
var credential = regexp.MustCompile(`(?i)pass|pwd|secret|token|hmac`)

// maxOptions is how many values the options of one target may have.
const maxOptions = 1000

func (o *options) readFrom(r *reader, p *place) {
	before := len(r.wrong)
	if !r.is(p, yaml.MappingNode, "a mapping (option: value)") {
		o.bad = true
		return
	}
	left := maxOptions
	plain := r.plain(p, &left, 0)
	if left < 0 {
		r.say(p, fmt.Sprintf("these options have more than %d values, or are nested too deep", maxOptions), "")
	}
	if o.bad = len(r.wrong) > before; o.bad {
		return
	}
	text, err := json.Marshal(plain)
	if err != nil {
		r.say(p, "these options cannot be written as JSON: "+err.Error(), "")
		o.bad = true
	}
	o.json = text
}

// plain turns YAML into what encoding/json writes.
func (r *reader) plain(p *place, left *int, depth int) any {
	if depth > maxDepth {
		*left = 0
	}
	if *left--; *left < 0 || r.tagged(p) {
		return nil
	}
	switch p.val.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for _, e := range r.entries(p) {
			if credential.MatchString(e.key.Value) {
				r.src.hide(follow(e.val))
			}
			m[e.key.Value] = r.plain(p.child(e.key, e.val), left, depth+1)
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for i, n := range p.val.Content {
			list = append(list, r.plain(p.index(i, n), left, depth+1))
		}
		return list
	}
	return r.plainScalar(p)
}

func (r *reader) plainScalar(p *place) any {
	switch p.val.Tag {
	case nullTag:
		r.say(p, "there is nothing here", "give a value, or take the line out")
	case boolTag:
		return strings.EqualFold(p.val.Value, "true")
	case intTag:
		if n, err := strconv.ParseInt(p.val.Value, 10, 64); err == nil {
			return n
		}
		r.say(p, "this is no decimal number", "write it in quotes if it is a text")
	case floatTag:
		f, err := strconv.ParseFloat(p.val.Value, 64)
		if err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
		r.say(p, "this is no decimal number", "write it in quotes if it is a text")
	}
	return p.val.Value
}

// dig is the place of an option, as far as it is there: "rsa.pem", "more[0].pem".
// Steps that are not there are passed over, since encoding/json names embedded
// structs, too. It does not number the items of lists: the only item that has the
// option is meant.
func (p *place) dig(option string) *place {
	for name := range strings.SplitSeq(option, ".") {
		name, number, isItem := strings.Cut(strings.TrimSuffix(name, "]"), "[")
		p = p.only(name).field(name)
		if i, err := strconv.Atoi(number); isItem && err == nil && i >= 0 {
			p = p.item(i)
		}
	}
	return p
}

// only is the item of a list that has the named field, if only one does.
func (p *place) only(field string) *place {
	found := p
	for i := range p.items() {
		item := p.item(i)
		if item.field(field) == item {
			continue
		}
		if found != p {
			return p
		}
		found = item
	}
	return found
}

// items is how many items a list has; 0: it is none.
func (p *place) items() int {
	if p.val.Kind != yaml.SequenceNode {
		return 0
	}
	return len(p.val.Content)
}

// find is the first place under p with the given key.
func (p *place) find(key string, depth int) *place {
	if depth > maxDepth {
		return nil
	}
	for _, e := range entries(p.val) {
		at := p.child(e.key, e.val)
		if e.key.Value == key {
			return at
		}
		if inner := at.find(key, depth+1); inner != nil {
			return inner
		}
	}
	for i := range p.items() {
		if inner := p.item(i).find(key, depth+1); inner != nil {
			return inner
		}
	}
	return nil
}

// unknownOption is how encoding/json tells of a field that is none.
var unknownOption = regexp.MustCompile(`unknown field "([^"]*)"`)

// optionNames notes options that are none of the known; a kind that lists none
// says so itself.
func (c *resolver) optionNames(o options, known []string) {
	if o.at == nil || len(known) == 0 {
		return
	}
	for _, e := range entries(o.at.val) {
		if !slices.Contains(known, e.key.Value) {
			c.unknown(o.at.child(e.key, e.val), known)
		}
	}
}

// secretNames notes secrets that whoever takes them does not know.
func (c *resolver) secretNames(at *place, who string, given, known []string) {
	for _, name := range given {
		if !slices.Contains(known, name) {
			c.say(key(at.field("secrets").field(name)), who+" has no secret "+quote(name), didYouMean(name, known))
		}
	}
}

// optionsWrong notes what a kind says against options, at the line of the option.
func (r *reader) optionsWrong(p *place, err error) {
	if own, ok := errors.AsType[OptionError](err); ok {
		field, problem, hint := own.Option()
		r.say(p.dig(field), problem, hint)
		return
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		r.wrongType(p.dig(wrong.Field), wrong)
		return
	}
	if m := unknownOption.FindStringSubmatch(err.Error()); m != nil {
		if at := p.find(m[1], 0); at != nil {
			r.unknown(at, nil)
			return
		}
	}
	r.say(p, err.Error(), "")
}

// wrongType notes an option of another type than its kind takes.
func (r *reader) wrongType(p *place, e *json.UnmarshalTypeError) {
	want := map[reflect.Kind]string{
		reflect.String: "a text", reflect.Int: "a whole number", reflect.Bool: "true or false", reflect.Slice: "a list", reflect.Struct: "a mapping",
	}[e.Type.Kind()]
	got, _, _ := strings.Cut(e.Value, " ")
	is := map[string]string{"string": "a text", "number": "a number", "bool": "true or false", "array": "a list", "object": "a mapping"}[got]
	hint := ""
	switch isScalar := p.val.Kind == yaml.ScalarNode; {
	case isScalar && e.Type.Kind() == reflect.Slice:
		hint = "write [" + strings.Join(strings.Fields(p.val.Value), ", ") + "]"
	case isScalar && e.Type.Kind() == reflect.String:
		hint = "write it in quotes: " + quote(p.val.Value)
	}
	r.say(p, "this should be "+orElse(want, "of another type")+", not "+orElse(is, got), hint)
}
