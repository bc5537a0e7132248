package config

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

//go:generate go test -run TestSchemaIsCurrent . -update

//go:embed schema.json
var schema []byte

// Schema is the JSON Schema (draft 2020-12) of farm.yaml, made from the same
// structs that read it. The options of targets are open in it.
func Schema() []byte { return bytes.Clone(schema) }

// SchemaWith is the schema with the options of the given kinds of targets, each
// a JSON Schema of an object. A kind that is not among them is refused by it.
func SchemaWith(kinds map[string]json.RawMessage) ([]byte, error) {
	var whole map[string]any
	if err := json.Unmarshal(schema, &whole); err != nil {
		return nil, fmt.Errorf("read the schema of farm.yaml: %w", err)
	}
	target := whole["$defs"].(map[string]any)["target"].(map[string]any)
	names := slices.Sorted(maps.Keys(kinds))
	target["properties"].(map[string]any)["kind"].(map[string]any)["enum"] = names
	var rules []any
	for _, name := range names {
		rules = append(rules, map[string]any{
			"if":   map[string]any{"properties": map[string]any{"kind": map[string]any{"const": name}}},
			"then": map[string]any{"properties": map[string]any{"options": kinds[name]}},
		})
	}
	target["allOf"] = rules
	out, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the schema of farm.yaml: %w", err)
	}
	return append(out, '\n'), nil
}
