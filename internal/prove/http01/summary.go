package http01

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Summary is one sort of finding and everywhere that it was made: what people
// read of a matrix with a thousand cells.
type Summary struct {
	Check     string   `json:"check,omitzero"`
	Verdict   Sort     `json:"verdict"`
	Saw       string   `json:"saw"`
	Remedy    string   `json:"remedy,omitzero"`
	Names     []string `json:"names"`              // in the order in which they were asked
	Nodes     []string `json:"nodes,omitzero"`     // of the cells that are a node's
	Addresses []string `json:"addresses,omitzero"` // of the cells that are an address of a name
	Cells     int      `json:"cells"`
}

// Summarise groups findings that say the same: first what is wrong, then what
// cannot be told, then what is right.
func Summarise(findings []Finding) []Summary {
	type key struct {
		verdict            Sort
		check, saw, remedy string
	}
	index := map[key]int{}
	var all []Summary
	for _, f := range findings {
		k := key{f.Verdict, f.Check, f.Saw, f.Remedy}
		i, known := index[k]
		if !known {
			i, index[k] = len(all), len(all)
			all = append(all, Summary{Check: f.Check, Verdict: f.Verdict, Saw: f.Saw, Remedy: f.Remedy})
		}
		all[i].add(f)
	}
	slices.SortStableFunc(all, func(a, b Summary) int { return cmp.Compare(rank(a.Verdict), rank(b.Verdict)) })
	return all
}

func (s *Summary) add(f Finding) {
	s.Cells++
	s.Names = once(s.Names, f.Name)
	switch {
	case f.Node != "":
		s.Nodes = once(s.Nodes, f.Node)
	case f.Address != "":
		s.Addresses = once(s.Addresses, f.Address)
	}
}

func once(all []string, one string) []string {
	if slices.Contains(all, one) {
		return all
	}
	return append(all, one)
}

func rank(s Sort) int { return slices.Index([]Sort{Wrong, Unclear, Right}, s) }

// Where says for whom and where it was found: "www.example.com at node web3", with
// what was asked before it, where that is said.
func (s Summary) Where() string {
	where := some(s.Names)
	if s.Check != "" {
		where = s.Check + " of " + where
	}
	if len(s.Addresses) > 0 {
		where += " at " + some(s.Addresses)
	}
	switch len(s.Nodes) {
	case 0:
	case 1:
		where += " at node " + s.Nodes[0]
	default:
		where += " at nodes " + some(s.Nodes)
	}
	return where
}

// String is one line for people.
func (s Summary) String() string {
	return string(s.Verdict) + ": " + s.text()
}

func (s Summary) text() string {
	text := s.Where() + ": " + s.Saw
	if s.Remedy != "" {
		text += "; " + s.Remedy
	}
	return text
}

// named is how many of a list are named.
const named = 4

func some(all []string) string {
	if len(all) <= named+1 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:named], ", "), len(all)-named)
}

// Verdict says whether findings hold an order back, and why. Only a wrong answer
// that was received does: what cannot be reached from here the CA may reach. And
// nothing does past the last safe moment, when a refused order costs less than
// none.
func Verdict(findings []Finding, pastLastSafe bool) (hold bool, why string) {
	var wrong []string
	for _, s := range Summarise(findings) {
		switch {
		case s.Verdict != Wrong:
		case len(s.Addresses)+len(s.Nodes) == 0: // a dead name
			wrong = append(wrong, s.text())
		default:
			wrong = append(wrong, fmt.Sprintf("%s gave a wrong answer (%s); %s", s.Where(), s.Saw, s.Remedy))
		}
	}
	if more := len(wrong) - named; more > 0 {
		wrong = append(wrong[:named], fmt.Sprintf("and %d more", more))
	}
	switch {
	case len(wrong) == 0:
		return false, ""
	case pastLastSafe:
		return false, "going on all the same, since the certificate expires soon: " + strings.Join(wrong, "; ")
	}
	return true, strings.Join(wrong, "; ")
}
