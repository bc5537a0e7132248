package encode

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestMemory(t *testing.T) {
	m := NewMemory()
	b, other := issue(t, ecKey(t), "www.example.org"), issue(t, ecKey(t), "www.example.org")
	first, err := m.Pair(b.Chain, b.Key.Reveal())
	must(t, err)
	if again, err := m.Pair(slices.Clone(b.Chain), b.Key.Reveal()); err != nil || again != first {
		t.Errorf("the same bytes were checked again, or were refused: %v", err)
	}
	for range 2 { // what failed is not remembered as good
		if leaf, err := m.Pair(b.Chain, other.Key.Reveal()); !errors.Is(err, ErrMismatch) || leaf == nil {
			t.Errorf("another key: leaf %t, %v", leaf != nil, err)
		}
	}
	must(t, m.Fits(b))
	strange := b
	strange.Names = []string{"shop.example.org"}
	if m.Fits(strange) == nil {
		t.Error("a known pair fits names that it does not cover")
	}
	strange = b
	strange.Leaf = other.Leaf
	if m.Fits(strange) == nil {
		t.Error("a known pair fits another leaf")
	}
}

// A pair that belongs together may have a chain that does not.
func TestMemoryKeepsPairAndChainApart(t *testing.T) {
	m := NewMemory()
	b, other := issue(t, ecKey(t), "www.example.org"), issue(t, ecKey(t), "www.example.org")
	leaf := strings.SplitAfter(string(b.Chain), "-----END CERTIFICATE-----\n")[0]
	b.Chain = []byte(leaf + string(other.Chain))
	if _, err := m.Pair(b.Chain, b.Key.Reveal()); err != nil {
		t.Fatal(err)
	}
	if m.Fits(b) == nil {
		t.Error("a chain whose leaf another signed fits")
	}
}

func TestNoMemoryChecks(t *testing.T) {
	var none *Memory
	b := issue(t, ecKey(t), "www.example.org")
	must(t, none.Fits(b))
	_, err := none.Pair(b.Chain, b.Key.Reveal())
	must(t, err)
}
