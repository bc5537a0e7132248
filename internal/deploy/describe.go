package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A Description is what people and programs are told of a kind: the same struct
// that decodes its options says it.
type Description struct {
	Name     string   `json:"name"`
	Doc      string   `json:"doc"`
	Fence    string   `json:"fence" doc:"fenced, conditional or unfenced: what keeps a stale controller out"`
	Nodeless bool     `json:"nodeless" doc:"it is no place on a node; the nodes of such a target are those that read it"`
	Trial    bool     `json:"trial" doc:"it has a shadow place, where target test and selftest try it"`
	Options  []Option `json:"options"`
	Secrets  []Secret `json:"secrets"`
}

// An Option is one setting of a kind, as it stands under options in farm.yaml.
type Option struct {
	Name    string `json:"name"`
	Doc     string `json:"doc"`
	Default any    `json:"default,omitempty" doc:"what holds where farm.yaml says nothing; not set: empty"`
}

// Describe tells what a kind may be told.
func (k Kind) Describe() Description {
	d := Description{Name: k.Name, Doc: k.Doc, Fence: k.Fence, Nodeless: k.Nodeless, Options: []Option{}, Secrets: k.Secrets}
	_, d.Trial = k.Options.(Shadowed)
	if d.Secrets == nil {
		d.Secrets = []Secret{}
	}
	var defaults map[string]any
	text, err := json.Marshal(k.Options)
	if err == nil {
		err = json.Unmarshal(text, &defaults)
	}
	if err != nil {
		panic("deploy: the defaults of " + k.Name + ": " + err.Error()) // Define has tried it
	}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(k.Options).Elem()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" || name == "-" {
			continue
		}
		d.Options = append(d.Options, Option{Name: name, Doc: f.Tag.Get("doc"), Default: solid(defaults[name])})
	}
	return d
}

// solid is a default that says something; nil: it is empty.
func solid(v any) any {
	if v == nil || reflect.ValueOf(v).IsZero() {
		return nil
	}
	switch v := v.(type) {
	case []any:
		if len(v) == 0 {
			return nil
		}
	case map[string]any:
		v = maps.Clone(v)
		maps.DeleteFunc(v, func(_ string, inner any) bool { return solid(inner) == nil })
		if len(v) == 0 {
			return nil
		}
		return v
	}
	return v
}

// Text is the default as farm.yaml would have it; empty: there is none.
func (o Option) Text() string { return flow(o.Default) }

func flow(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []any:
		var all []string
		for _, inner := range v {
			all = append(all, flow(inner))
		}
		return "[" + strings.Join(all, ", ") + "]"
	case map[string]any:
		var all []string
		for _, name := range slices.Sorted(maps.Keys(v)) {
			all = append(all, name+": "+flow(v[name]))
		}
		return "{" + strings.Join(all, ", ") + "}"
	}
	return fmt.Sprint(v)
}
