package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// The short tags that YAML values have.
const (
	textTag  = "!!str"
	intTag   = "!!int"
	floatTag = "!!float"
	boolTag  = "!!bool"
	nullTag  = "!!null"
	mergeTag = "!!merge"
	timeTag  = "!!timestamp" // a text to us
)

// A reader fills the structs of words.go from YAML nodes, strictly, and notes
// every mistake instead of ending at the first.
type reader struct {
	src     *source
	inline  bool // secrets may stand in files and in the environment
	left    int  // values that may still be read
	full    bool // of mistakes, or of values
	wrong   Mistakes
	secrets map[string]*place
	faulty  map[*yaml.Node]bool // values that were found wrong
	structs map[reflect.Type][]field
}

// A field of a struct, as farm.yaml sees it.
type field struct {
	name  string
	index int
	must  bool
	enum  []string
}

// custom is a word that reads itself.
type custom interface {
	readFrom(r *reader, p *place)
}

func newReader(file string, text []byte, inline bool) *reader {
	return &reader{
		src: newSource(file, text), inline: inline, left: maxReads,
		secrets: map[string]*place{}, faulty: map[*yaml.Node]bool{}, structs: map[reflect.Type][]field{},
	}
}

// say notes a mistake. Its picture is drawn later, when all secrets are known.
func (r *reader) say(p *place, problem, hint string) {
	if r.full || r.again(p) {
		return
	}
	n := p.node()
	r.wrong = append(r.wrong, Mistake{
		// What is not there may be said to stand behind the end.
		File: r.src.file, Line: min(max(1, n.Line), len(r.src.lines)), Column: max(1, n.Column),
		Path: p.path(), Problem: printable(problem), Hint: printable(hint),
	})
	r.full = len(r.wrong) >= kept
}

// again reports whether a value was found wrong before: what follows from that
// is no second mistake.
func (r *reader) again(p *place) bool {
	isValue := p.key != nil || strings.HasPrefix(p.step, "[")
	if !isValue || p.val.Kind != yaml.ScalarNode {
		return false
	}
	before := r.faulty[p.val]
	r.faulty[p.val] = true
	return before
}

// found returns the mistakes with their pictures.
func (r *reader) found() Mistakes {
	ms := r.wrong.tidy()
	for i, m := range ms {
		ms[i].Picture = r.src.picture(m.Line, m.Column)
	}
	return ms
}

// mentions lists the sealed secrets that were named.
func (r *reader) mentions() []Mention {
	var all []Mention
	for name, p := range r.secrets {
		n := p.node()
		all = append(all, Mention{name, Mistake{
			File: r.src.file, Line: n.Line, Column: n.Column, Path: p.path(),
			Picture: r.src.picture(n.Line, n.Column),
		}})
	}
	slices.SortFunc(all, func(a, b Mention) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// read fills the file's struct from the root of the document.
func (r *reader) read(root *yaml.Node, f *farmFile) {
	r.value(&place{val: follow(root)}, reflect.ValueOf(f).Elem())
}

// value fills v with what stands at p.
func (r *reader) value(p *place, v reflect.Value) {
	if r.left--; r.left < 0 && !r.full {
		r.say(p, fmt.Sprintf("the file has more than %d values, aliases followed", maxReads), "")
		r.full = true
	}
	if l, ok := reflect.TypeAssert[interface{ put(*place) }](v.Addr()); ok {
		l.put(p) // before anything can go wrong: what comes later asks where it stands
	}
	if r.full || r.tagged(p) {
		return
	}
	if own, ok := reflect.TypeAssert[custom](v.Addr()); ok {
		own.readFrom(r, p)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.value(p, v.Elem())
	case reflect.Struct:
		r.mapping(p, v)
	case reflect.Map:
		r.named(p, v)
	case reflect.Slice:
		r.list(p, v)
	default:
		r.scalar(p, v)
	}
}

// tagged refuses a type written by hand (!!binary, !mine).
func (r *reader) tagged(p *place) bool {
	if p.val.Style&yaml.TaggedStyle == 0 {
		return false
	}
	r.say(p, "tags such as "+p.val.Tag+" are not used here", "take the tag out")
	return true
}

// is reports whether p holds the wanted kind of node, and notes it if not.
func (r *reader) is(p *place, kind yaml.Kind, want string) bool {
	if p.val.Kind == kind {
		return true
	}
	if p.val.Tag == nullTag {
		r.say(p, "there is nothing here", "give "+want+", or take the line out")
	} else {
		r.say(p, "this should be "+want+", not "+describe(p.val), bracketed(p.val, kind))
	}
	return false
}

// bracketed is a hint for what stands alone where a list is wanted.
func bracketed(n *yaml.Node, want yaml.Kind) string {
	switch {
	case want != yaml.SequenceNode:
		return ""
	case n.Kind == yaml.ScalarNode:
		return "write [" + n.Value + "]"
	}
	return "put it in brackets, or a dash in front of each item"
}

// mapping fills a struct.
func (r *reader) mapping(p *place, v reflect.Value) {
	if !r.is(p, yaml.MappingNode, "a mapping (name: value)") {
		return
	}
	fields := r.fields(v.Type())
	given := map[string]bool{}
	for _, e := range r.entries(p) {
		at := p.child(e.key, e.val)
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == e.key.Value })
		if i < 0 {
			given[r.unknown(at, names(fields))] = true
			continue
		}
		given[e.key.Value] = true
		r.value(at, v.Field(fields[i].index))
		r.oneOf(at, fields[i].enum)
	}
	for _, f := range fields {
		if f.must && !given[f.name] {
			r.say(p, quote(f.name)+" is missing", "")
		}
	}
}

// oneOf notes a text that is none of those that the field may have.
func (r *reader) oneOf(p *place, enum []string) {
	for i := range max(1, len(p.val.Content)) {
		item := p.item(i)
		if len(enum) > 0 && item.val.Tag == textTag && !slices.Contains(enum, item.val.Value) {
			r.say(item, quote(item.val.Value)+" is not known here", didYouMean(item.val.Value, enum))
		}
	}
}

// unknown notes a field that does not exist, hides its value if it could be a
// secret, and returns the name that was likely meant.
func (r *reader) unknown(p *place, names []string) string {
	name := p.key.Value
	if secretish.MatchString(name) {
		r.src.hide(p.val)
	}
	r.say(&place{up: p.up, step: p.step, val: p.key}, "there is no field "+quote(name)+" here", didYouMean(name, names))
	return Meant(name, names)
}

// entries lists a mapping's entries once each, and notes keys that stand twice.
func (r *reader) entries(p *place) []entry {
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(p.val.Content); i += 2 {
		r.key(p, p.val.Content[i], p.val.Content[i+1], first)
	}
	var once []entry
	for _, e := range entries(p.val) {
		if n := first[e.key.Value]; e.key.Kind == yaml.ScalarNode && (n == nil || n == e.key) {
			once = append(once, e)
		}
	}
	return once
}

func (r *reader) key(p *place, key, val *yaml.Node, first map[string]*yaml.Node) {
	at := &place{up: p.up, step: p.step, val: key}
	switch before := first[key.Value]; {
	case key.Kind != yaml.ScalarNode:
		r.say(at, "a name should be a text, not "+describe(key), "")
	case before != nil:
		r.say(at, quote(key.Value)+" stands here twice", "it is on line "+strconv.Itoa(before.Line)+" already")
		if secretish.MatchString(key.Value) {
			r.src.hide(follow(val))
		}
	default:
		first[key.Value] = key
	}
	if key.Tag == mergeTag && follow(val).Kind != yaml.MappingNode {
		r.say(at, "<< takes one mapping, not "+describe(follow(val)), "")
	}
}

// named fills a map from names to values.
func (r *reader) named(p *place, v reflect.Value) {
	if !r.is(p, yaml.MappingNode, "a mapping (name: value)") {
		return
	}
	list := r.entries(p)
	v.Set(reflect.MakeMapWithSize(v.Type(), len(list)))
	for _, e := range list {
		if r.full {
			return
		}
		elem := reflect.New(v.Type().Elem()).Elem()
		r.value(p.child(e.key, e.val), elem)
		v.SetMapIndex(reflect.ValueOf(e.key.Value), elem)
	}
}

// list fills a slice.
func (r *reader) list(p *place, v reflect.Value) {
	if !r.is(p, yaml.SequenceNode, "a list") {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(p.val.Content), len(p.val.Content)))
	for i, n := range p.val.Content {
		r.value(p.index(i, n), v.Index(i))
	}
}

// scalar fills a text, a number or a yes or no.
func (r *reader) scalar(p *place, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if s, ok := r.text(p); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if r.is(p, yaml.ScalarNode, "true or false") {
			if p.val.Tag != boolTag {
				r.say(p, "this should be true or false, not "+describe(p.val), "")
			}
			v.SetBool(strings.EqualFold(p.val.Value, "true"))
		}
	case reflect.Int:
		if r.is(p, yaml.ScalarNode, "a whole number") {
			n, err := strconv.Atoi(p.val.Value)
			if p.val.Tag != intTag || err != nil {
				r.say(p, "this should be a whole number, not "+describe(p.val), "")
			}
			v.SetInt(int64(n))
		}
	default:
		panic("config: words.go has a field of kind " + v.Kind().String())
	}
}

// text returns the text at p; an empty one is a mistake.
func (r *reader) text(p *place) (string, bool) {
	if !r.is(p, yaml.ScalarNode, "a text") {
		return "", false
	}
	switch p.val.Tag {
	case textTag, timeTag:
		if p.val.Value == "" {
			r.say(p, "this text is empty", "give a text, or take the line out")
			return "", false
		}
		return p.val.Value, true
	case nullTag:
		r.say(p, "there is nothing here", "give a text, or take the line out")
		return "", false
	}
	r.say(p, "this should be a text, not "+describe(p.val), "write it in quotes: "+quote(p.val.Value))
	return "", false
}

// fields lists a struct's fields by its tags.
func (r *reader) fields(t reflect.Type) []field {
	if known, ok := r.structs[t]; ok {
		return known
	}
	var all []field
	for i := range t.NumField() {
		f := field{name: t.Field(i).Tag.Get("yaml"), index: i}
		if f.name == "" {
			continue
		}
		for word := range strings.SplitSeq(t.Field(i).Tag.Get("jsonschema"), ",") {
			if value, ok := strings.CutPrefix(word, "enum="); ok {
				f.enum = append(f.enum, value)
			}
			f.must = f.must || word == "required"
		}
		all = append(all, f)
	}
	r.structs[t] = all
	return all
}

func names(fields []field) []string {
	var all []string
	for _, f := range fields {
		all = append(all, f.name)
	}
	return all
}

// describe says what a node is, for a sentence.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == nullTag:
		return "nothing"
	case n.Tag == boolTag:
		return n.Value
	case n.Tag == intTag, n.Tag == floatTag:
		return "the number " + strings.Map(onlyNumber, n.Value)
	}
	return "a text"
}

func onlyNumber(c rune) rune {
	if strings.ContainsRune("0123456789.+-eE_xabcdfinoABCDF", c) {
		return c
	}
	return -1
}
