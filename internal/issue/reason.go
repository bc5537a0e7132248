package issue

import "slices"

// KeyCompromise is the reason of a leaf whose key others know.
const KeyCompromise = 1

// A Reason is why a leaf is revoked (RFC 5280 §5.3.1), as far as a subscriber may
// say it (CA/B Forum Baseline Requirements §4.9.1.1 and §7.2.2).
type Reason struct {
	Name string
	Code int
	When string // it applies
}

// Reasons are the reasons that a subscriber may give.
func Reasons() []Reason {
	return []Reason{
		{"unspecified", 0, "none of the others fits"},
		{"keyCompromise", KeyCompromise, "others know the key"},
		{"affiliationChanged", 3, "the name of the organisation in it changed"},
		{"superseded", 4, "another certificate took its place"},
		{"cessationOfOperation", 5, "its names are not ours any more"},
		{"privilegeWithdrawn", 9, "what it says was not right"},
	}
}

// ReasonNamed finds a reason by its name.
func ReasonNamed(name string) (Reason, bool) {
	all := Reasons()
	i := slices.IndexFunc(all, func(r Reason) bool { return r.Name == name })
	if i < 0 {
		return Reason{}, false
	}
	return all[i], true
}

// ReasonName is the name of a reason's code.
func ReasonName(code int) string {
	for _, r := range Reasons() {
		if r.Code == code {
			return r.Name
		}
	}
	return "unspecified"
}
