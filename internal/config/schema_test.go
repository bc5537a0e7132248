package config

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
)

// generated is the schema as the structs of words.go have it.
func generated(t *testing.T) []byte {
	t.Helper()
	r := jsonschema.Reflector{
		Anonymous: true, FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true,
		Mapper: mapped, LookupComment: doc, ExpandedStruct: true,
	}
	s := r.Reflect(&farmFile{})
	one := r.Reflect(&validation{}) // a list of them reads itself
	one.Version = ""
	s.Definitions["validation"] = one
	s.ID = "https://github.com/certfarm/certfarm/farm.schema.json"
	s.Title = "farm.yaml"
	s.Description = "A farm of servers and the certificates that they serve, as Certfarm reads it."
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// doc is a field's description.
func doc(t reflect.Type, field string) string {
	if t.Kind() != reflect.Struct {
		return ""
	}
	f, _ := t.FieldByName(field)
	return f.Tag.Get("doc")
}

// mapped is the schema of the words that read themselves.
func mapped(t reflect.Type) *jsonschema.Schema {
	text := &jsonschema.Schema{Type: "string", MinLength: new(uint64(1))}
	texts := &jsonschema.Schema{Type: "array", Items: text}
	labels := &jsonschema.Schema{Type: "object", AdditionalProperties: text, MinProperties: new(uint64(1))}
	switch t {
	case reflect.TypeFor[list]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{text, texts}}
	case reflect.TypeFor[selector]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{text, texts, labels}}
	case reflect.TypeFor[duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^0$|^(\d+d)?(\d+(\.\d+)?(h|m|s|ms|us|µs|ns))*$`}
	case reflect.TypeFor[rate]():
		return &jsonschema.Schema{Type: "string", Pattern: `^[1-9]\d* per \S+$`}
	case reflect.TypeFor[share]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{
			{Type: "integer", Minimum: "0"},
			{Type: "string", Pattern: `^\d+$|^[0-9.]+%$|^max\(\d+, *[0-9.]+%\)$`},
		}}
	case reflect.TypeFor[validations]():
		one := &jsonschema.Schema{Ref: "#/$defs/validation"}
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{one, {Type: "array", Items: one, MinItems: new(uint64(1))}}}
	case reflect.TypeFor[options]():
		return &jsonschema.Schema{Type: "object"}
	case reflect.TypeFor[secret]():
		one := jsonschema.NewProperties()
		for _, f := range secretFields {
			one.Set(f, text)
		}
		return &jsonschema.Schema{
			Type: "object", Properties: one, AdditionalProperties: jsonschema.FalseSchema,
			MinProperties: new(uint64(1)), MaxProperties: new(uint64(1)),
			Description: "secret: a name given to 'certfarm secret set'. file and env only work in 'run --once -f' and 'lab'.",
		}
	}
	return nil
}

func TestSchemaIsCurrent(t *testing.T) {
	got := generated(t)
	if *update {
		if err := os.WriteFile("schema.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, Schema()) {
		t.Error("schema.json is not what words.go says: run go generate ./internal/config")
	}
}

// TestWordsAreDocumented: every field has a doc tag, which is its help text.
func TestWordsAreDocumented(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var look func(reflect.Type)
	look = func(t0 reflect.Type) {
		switch t0.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			look(t0.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[t0] || mapped(t0) != nil {
			return
		}
		seen[t0] = true
		for f := range t0.Fields() {
			if f.Anonymous {
				continue
			}
			if f.Tag.Get("yaml") == "" || !strings.HasSuffix(f.Tag.Get("doc"), ".") {
				t.Errorf("%s.%s: want a yaml tag, and a doc tag that ends with a full stop", t0.Name(), f.Name)
			}
			look(f.Type)
		}
	}
	look(reflect.TypeFor[farmFile]())
	if len(seen) < 10 { // it did look
		t.Errorf("only %d structs were looked at", len(seen))
	}
}

func TestSchemaWith(t *testing.T) {
	out, err := SchemaWith(map[string]json.RawMessage{"nginx": json.RawMessage(`{"required":["pem"]}`), "files": json.RawMessage(`{}`)})
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Defs map[string]struct {
			AllOf      []any
			Properties map[string]struct{ Enum []any }
		} `json:"$defs"`
	}
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	target := s.Defs["target"]
	if len(target.AllOf) != 2 || len(target.Properties["kind"].Enum) != 2 || !bytes.Contains(out, []byte(`"pem"`)) {
		t.Errorf("got %s", out)
	}
}
