package config

import (
	"bytes"
	"slices"

	"go.yaml.in/yaml/v4"
)

// A cut is the text of a farm.yaml in pieces: each entry of `sites:` is a block of
// lines, and all else is the frame around them.
//
// Where a block begins is found by the look of a line alone, which may be deceived: by a
// line of a text that goes over several, or by brackets. So a cut counts for nothing
// until agrees has held it against what the YAML parser found. Then every block begins
// where the parser expected the next entry and nothing was open, no bracket, no quote
// and no text, and it ends in the same state; and there are no anchors, by which one
// place could mean something in another. From the same state the same lines are read
// alike, so that blocks of two such texts with one frame can be put together, in any
// order, and mean what they meant.
type cut struct {
	head, tail []byte // the frame: down to the first block, and from behind the last
	blocks     []block
	sites      int // the line of `sites:`, from 1
	end        int // the line that the tail begins with
	indent     int // of the blocks' first lines
}

// A block is the lines of one site with what stands behind it, comments too.
type block struct {
	name string
	text []byte
	line int // from 1
}

// cutUp cuts a text whose lines end in \n. Not ok: it has no `sites:` in block style
// with an entry.
func cutUp(text []byte) (c cut, ok bool) {
	begin, at, number := 0, 0, 0
	for line := range bytes.Lines(text) {
		number++
		if name, indent := c.entry(line); name != "" {
			c.closes(text[begin:at])
			c.indent, begin = indent, at
			c.blocks = append(c.blocks, block{name: name, line: number})
		} else if c.sites > 0 && !bytes.ContainsAny(line[:1], " #\n") {
			c.end, c.tail = number, text[at:]
			break
		} else if c.sites == 0 && isSites(line) {
			c.sites = number
		}
		at += len(line)
	}
	c.closes(text[begin:at])
	return c, len(c.blocks) > 0
}

// closes ends what was begun: the head, or a block.
func (c *cut) closes(text []byte) {
	if len(c.blocks) == 0 {
		c.head = text
		return
	}
	c.blocks[len(c.blocks)-1].text = text
}

// entry is the name with which a line begins a block, and its indentation: below
// `sites:`, and that of the blocks before; empty: it does not begin one.
func (c *cut) entry(line []byte) (name string, indent int) {
	name, indent = entryOf(line)
	if c.sites == 0 || indent == 0 || len(c.blocks) > 0 && indent != c.indent {
		return "", 0
	}
	return name, indent
}

// isSites reports the line `sites:`, with nothing behind it but a comment.
func isSites(line []byte) bool {
	rest, is := bytes.CutPrefix(line, []byte("sites:"))
	bare := bytes.TrimLeft(bytes.TrimSuffix(rest, []byte("\n")), " ")
	return is && (len(bare) == 0 || bare[0] == '#' && rest[0] == ' ')
}

// entryOf is the name that a line gives to an entry, and how far it is indented; empty:
// it does not look like one.
func entryOf(line []byte) (name string, indent int) {
	bare := bytes.TrimLeft(line, " ")
	n := 0
	for n < len(bare) && inName(bare[n], n == 0) {
		n++
	}
	if n == 0 || n+1 >= len(bare) || bare[n] != ':' || bare[n+1] != ' ' && bare[n+1] != '\n' {
		return "", 0
	}
	return string(bare[:n]), len(line) - len(bare)
}

// inName reports what names are made of.
func inName(b byte, first bool) bool {
	letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
	return letter || !first && (b == '.' || b == '-' || b == '_')
}

// agrees reports that the parser found the same pieces in the text.
func (c cut) agrees(root *yaml.Node) bool {
	if !isBlock(root) || root.Anchor != "" {
		return false
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "sites" {
			return stands(root.Content[i], c.sites, 0) && c.agreesIn(root.Content[i+1]) && c.endsAt(root.Content[i+2:])
		}
	}
	return false
}

// agreesIn reports that the sites begin where the blocks do.
func (c cut) agreesIn(sites *yaml.Node) bool {
	if !isBlock(sites) || anchored(sites) || len(sites.Content) != 2*len(c.blocks) {
		return false
	}
	for i, b := range c.blocks {
		if key := sites.Content[2*i]; key.Value != b.name || !stands(key, b.line, c.indent) {
			return false
		}
	}
	return true
}

// endsAt reports that what comes behind the sites begins where the tail does.
func (c cut) endsAt(behind []*yaml.Node) bool {
	if len(c.tail) == 0 || len(behind) == 0 {
		return len(c.tail) == len(behind)
	}
	return stands(behind[0], c.end, 0)
}

// isBlock reports a mapping that is not in brackets.
func isBlock(n *yaml.Node) bool { return n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle == 0 }

// stands reports that a node begins at a line and a column, from 0.
func stands(n *yaml.Node, line, column int) bool { return n.Line == line && n.Column == column+1 }

// anchored reports an anchor at a node or anywhere below it.
func anchored(n *yaml.Node) bool { return n.Anchor != "" || slices.ContainsFunc(n.Content, anchored) }

// sameFrame reports that two texts differ in nothing but their blocks.
func (c cut) sameFrame(d cut) bool {
	return c.indent == d.indent && bytes.Equal(c.head, d.head) && bytes.Equal(c.tail, d.tail)
}

// with is the text with these blocks alone.
func (c cut) with(blocks []block) []byte {
	text := bytes.Clone(c.head)
	for _, b := range blocks {
		text = append(text, b.text...)
	}
	return append(text, c.tail...)
}

// named are the texts of the blocks by their names.
func (c cut) named() map[string][]byte {
	all := make(map[string][]byte, len(c.blocks))
	for _, b := range c.blocks {
		all[b.name] = b.text
	}
	return all
}
