package config

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A place is somewhere in the file: the way to it and its nodes.
type place struct {
	up   *place
	step string     // ".name" or "[3]"
	key  *yaml.Node // nil in a list
	val  *yaml.Node // what it holds; an alias is followed
}

// located is embedded by a struct of words.go to know where it stands.
type located struct{ at *place }

func (l *located) put(p *place) { l.at = p }

// child is the place of a mapping's entry.
func (p *place) child(key, val *yaml.Node) *place {
	return &place{up: p, step: step(key.Value), key: key, val: follow(val)}
}

// index is the place of a list's item.
func (p *place) index(i int, val *yaml.Node) *place {
	return &place{up: p, step: "[" + strconv.Itoa(i) + "]", val: follow(val)}
}

// field is the place of a named entry, or p where there is none.
func (p *place) field(name string) *place {
	for _, e := range entries(p.val) {
		if e.key.Value == name {
			return p.child(e.key, e.val)
		}
	}
	return p
}

// item is the place of an item of a list, or p where a single text stands for
// a list.
func (p *place) item(i int) *place {
	if p.val.Kind != yaml.SequenceNode || i >= len(p.val.Content) {
		return p
	}
	return p.index(i, p.val.Content[i])
}

// node is what to point at: the key of what spans lines, the value of the rest.
func (p *place) node() *yaml.Node {
	if p.key != nil && p.val.Kind != yaml.ScalarNode && p.val.Style&yaml.FlowStyle == 0 {
		return p.key
	}
	if p.key != nil && p.val.Tag == nullTag {
		return p.key
	}
	return p.val
}

// path is how the place is written: sites.shop.targets[0].kind.
func (p *place) path() string {
	var steps []string
	for ; p != nil; p = p.up {
		steps = append(steps, p.step)
	}
	var b strings.Builder
	for _, s := range slices.Backward(steps) {
		b.WriteString(s)
	}
	return strings.TrimPrefix(b.String(), ".")
}

func step(key string) string {
	if !validName(key) || strings.Contains(key, ".") {
		return "." + quote(key)
	}
	return "." + key
}

// follow returns what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for hops := 0; n.Kind == yaml.AliasNode && n.Alias != nil && hops < maxDepth; hops++ {
		n = n.Alias
	}
	return n
}

// An entry is a key of a mapping with its value.
type entry struct{ key, val *yaml.Node }

// entries lists a mapping's entries, those of a merged mapping (<<) after its
// own and without the keys that it has itself. Only one mapping is merged: lists
// of them would let a small file grow without bound.
func entries(n *yaml.Node) []entry { return gather(n, 0) }

func gather(n *yaml.Node, depth int) []entry {
	n = follow(n)
	if n.Kind != yaml.MappingNode || depth > maxDepth {
		return nil
	}
	all := make([]entry, 0, len(n.Content)/2)
	var merged *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		switch {
		case key.Tag != mergeTag:
			all = append(all, entry{key, val})
		case merged == nil:
			merged = val
		}
	}
	if merged == nil {
		return all
	}
	have := map[string]bool{}
	for _, e := range all {
		have[e.key.Value] = true
	}
	for _, e := range gather(merged, depth+1) {
		if !have[e.key.Value] {
			all = append(all, e)
		}
	}
	return all
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
