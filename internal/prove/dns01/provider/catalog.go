package provider

import (
	_ "embed"
	"encoding/json"
	"sync"

	"github.com/go-acme/lego/v5/challenge"
)

//go:generate go run ../../../../tools/dnsproviders

//go:embed lego.json
var legoJSON []byte

// An entry is what lego says of one of its providers; tools/dnsproviders writes
// them down.
type entry struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	// Own is set where the API is spoken to by us alone, with lego's settings.
	Own bool `json:"own"`
	// Forgets is set where lego's client removes by what it kept in memory.
	Forgets bool `json:"forgets"`
	// Sequential is set where calls for one zone must not overlap.
	Sequential bool      `json:"sequential"`
	Settings   []setting `json:"settings"`
}

// A setting is an environment variable that lego reads.
type setting struct {
	Name       string `json:"name"`
	About      string `json:"about"`
	Default    string `json:"default"`
	Ours       bool   `json:"ours"`       // the default is ours: lego must be told
	Credential bool   `json:"credential"` // it says who we are; secret or not
	Secret     bool   `json:"secret"`
	File       bool   `json:"file"` // lego wants the name of a file; its content is the setting
}

// catalog are lego's providers by name.
var catalog = sync.OnceValue(func() map[string]entry {
	var all []entry
	if err := json.Unmarshal(legoJSON, &all); err != nil {
		panic("provider: lego.json: " + err.Error()) // it is part of the program
	}
	byName := make(map[string]entry, len(all))
	for _, e := range all {
		byName[e.Name] = e
	}
	return byName
})

// made has a constructor return what all of lego's providers are.
func made[P challenge.Provider](construct func() (P, error)) func() (challenge.Provider, error) {
	return func() (challenge.Provider, error) { return construct() }
}
