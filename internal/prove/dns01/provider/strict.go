package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/config"
)

// An optionError is a mistake in one option. It is a config.OptionError.
type optionError struct{ field, problem, hint string }

// Error says what is wrong with which option, and what to do.
func (e *optionError) Error() string {
	text := e.problem
	if e.field != "" {
		text = e.field + ": " + text
	}
	if e.hint != "" {
		text += " (" + e.hint + ")"
	}
	return text
}

// Option tells which option is wrong, how, and what to do.
func (e *optionError) Option() (field, problem, hint string) { return e.field, e.problem, e.hint }

// unknownField is how encoding/json tells of a field that is none.
var unknownField = regexp.MustCompile(`^json: unknown field "([^"]*)"$`)

// readStrict reads options over o, which has the defaults. An option that is none
// is a mistake, with the one that was likely meant.
func readStrict(raw []byte, o any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(o)
	if err == nil {
		return nil
	}
	m := unknownField.FindStringSubmatch(err.Error())
	if m == nil {
		return fmt.Errorf("options: %w", err)
	}
	names := optionNames(reflect.TypeOf(o).Elem())
	hint := "there is " + strings.Join(names, ", ")
	if meant := config.Meant(m[1], names); meant != "" {
		hint = fmt.Sprintf("did you mean %q?", meant)
	}
	return &optionError{m[1], fmt.Sprintf("there is no option %q", m[1]), hint}
}

// optionNames are the names of a struct's fields in JSON, those of structs inside
// too.
func optionNames(t reflect.Type) (names []string) {
	for t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(append(names, name), optionNames(f.Type)...)
	}
	return names
}

// wantSecrets checks the names of the secrets that are given against those that
// are needed.
func wantSecrets(given []string, needed ...string) error {
	for _, n := range needed {
		if !slices.Contains(given, n) {
			return &optionError{"", fmt.Sprintf("the secret %q is missing", n), "give it under secrets"}
		}
	}
	for _, g := range given {
		if slices.Contains(needed, g) {
			continue
		}
		hint := "it needs none"
		if len(needed) > 0 {
			hint = "there is " + strings.Join(needed, ", ")
		}
		return &optionError{g, fmt.Sprintf("there is no secret %q", g), hint}
	}
	return nil
}
