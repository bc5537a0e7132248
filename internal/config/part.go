package config

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"io"
	"regexp"
	"slices"
	"sort"
)

// A text that was read before, and one that differs from it in a few sites: what follows
// reads those sites alone, and knows of the others what a Tally tells. Whatever it is
// not sure of, it leaves to Parse.

// maxPart is how much of two texts may differ for a part of them to be read, in bytes:
// what costs a fraction of a second, even if the whole must be read then.
const maxPart = 1 << 20

// A Tally is what the sites of a farm.yaml come to together: where they share a limit, or
// may be in each other's way. Its text is one of which parts can be read.
type Tally struct {
	Values  int      `json:"values"`            // read of the text
	Targets int      `json:"targets"`           //
	Secrets []string `json:"secrets,omitempty"` // the sealed secrets that are named
	Taken   []byte   `json:"taken"`             // digests of every target's physical places and identity, 8 bytes each, in order
}

// digestBytes is the size of one digest of a Tally.
const digestBytes = 8

// digest stands for what one target has to itself. Two things of one digest cost time
// alone: the whole is read then.
func digest(words ...string) uint64 {
	h := fnv.New64a()
	for _, w := range words {
		_, _ = io.WriteString(h, w+"\x00") // hashes take everything
	}
	return h.Sum64()
}

// tally sums up what was resolved.
func (c *resolver) tally(secrets []Mention) *Tally {
	t := &Tally{Values: maxReads - c.left, Targets: c.targets, Taken: make([]byte, 0, digestBytes*len(c.taken))}
	for _, m := range secrets {
		t.Secrets = append(t.Secrets, m.Name)
	}
	slices.Sort(c.taken)
	for _, d := range c.taken {
		t.Taken = binary.BigEndian.AppendUint64(t.Taken, d)
	}
	return t
}

// count is how many targets take what a digest stands for.
func (t Tally) count(digest []byte) int {
	n := len(t.Taken) / digestBytes
	at := func(i int) []byte { return t.Taken[i*digestBytes : (i+1)*digestBytes] }
	first := sort.Search(n, func(i int) bool { return bytes.Compare(at(i), digest) >= 0 })
	return sort.Search(n-first, func(i int) bool { return bytes.Compare(at(first+i), digest) > 0 })
}

// A Part is some sites of a farm: what they were, and what they are to be. Of all other
// sites both texts say the same; everything else of the farm is whole in both.
type Part struct{ Was, Is Parsed }

// Between reads of two texts the sites in which they differ. Old is a text that Parse has
// read without a mistake and with the same vocabulary, and t its tally. Ok says that new
// has no mistake either, and that plan.Diff of the two whole farms is that of the parts;
// else Parse has to read the whole, which tells mistakes with their lines in it.
func Between(old, new []byte, file string, t Tally, v Vocabulary) (p Part, ok bool) {
	was, okOld := cutUp(lines(old))
	is, okNew := cutUp(lines(new))
	if !okOld || !okNew || len(new) > maxText || !was.sameFrame(is) {
		return p, false
	}
	gone, come, ok := differing(was, is)
	if !ok {
		return p, false
	}
	if p.Was, ok = was.read(gone, file, v); !ok {
		return p, false
	}
	if p.Is, ok = is.read(come, file, v); !ok {
		return p, false
	}
	return p, p.apart(t)
}

// differing lists the blocks of each text that are not in the other, and one that both have
// if there is any: then there is something to read on both sides. Not ok: they are many,
// or two blocks of a text have one name.
func differing(was, is cut) (gone, come []block, ok bool) {
	before, now := was.named(), is.named()
	if len(before) < len(was.blocks) || len(now) < len(is.blocks) {
		return nil, nil, false
	}
	both := slices.IndexFunc(was.blocks, func(b block) bool { return bytes.Equal(b.text, now[b.name]) })
	size := 0
	but := func(all []block, others map[string][]byte) (some []block) {
		for _, b := range all {
			if both >= 0 && b.name == was.blocks[both].name || !bytes.Equal(b.text, others[b.name]) {
				some = append(some, b)
				size += len(b.text)
			}
		}
		return some
	}
	gone, come = but(was.blocks, now), but(is.blocks, before)
	return gone, come, size <= maxPart
}

// read reads the text with some of its blocks.
func (c cut) read(blocks []block, file string, v Vocabulary) (Parsed, bool) {
	p, err := parse(c.with(blocks), file, v, true)
	return p, err == nil && p.Tally != nil
}

// apart reports that the sites of the part are in nobody's way, and leave nobody alone,
// among those that are in neither text of it: the limits of a farm hold with them, no
// target of the rest has a place or an identity that one of theirs has or had, and what
// the farm's own words ask for and one of them had, one of them has.
func (p Part) apart(t Tally) bool {
	was, is := *p.Was.Tally, *p.Is.Tally
	if t.Values-was.Values+is.Values > maxReads || t.Targets-was.Targets+is.Targets > maxTargets {
		return false
	}
	for d := range slices.Chunk(slices.Concat(was.Taken, is.Taken), digestBytes) {
		if t.count(d) != was.count(d) {
			return false
		}
	}
	for what := range p.Was.met {
		if !p.Is.met[what] {
			return false
		}
	}
	return true
}

// farmLine says which farm a text is of.
var farmLine = regexp.MustCompile(`(?m)^farm: *([A-Za-z0-9._-]+) *$`)

// FarmOf is the name that a text seems to give its farm, and is nothing to rely on; empty:
// none is seen.
func FarmOf(text []byte) string {
	m := farmLine.FindSubmatch(text[:min(len(text), maxPart)])
	if m == nil {
		return ""
	}
	return string(m[1])
}
