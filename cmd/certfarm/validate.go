package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/invopop/jsonschema"
	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
)

// maxFarmFile is more than a farm of 100,000 sites takes.
const maxFarmFile = 32 << 20

// read reads a farm.yaml and checks it here, so that nothing is sent that has
// mistakes. inPlace allows secrets from files and the environment.
func (a *app) read(name string, inPlace bool) (text []byte, p config.Parsed, err error) {
	if text, err = a.readFile(name, maxFarmFile); err != nil {
		return nil, p, err
	}
	p, err = parse(text, name, inPlace)
	return text, p, err
}

func parse(text []byte, name string, inPlace bool) (config.Parsed, error) {
	return config.Parse(text, name, controller.Vocabulary(target.All(), inPlace))
}

func newValidate(a *app) *cobra.Command {
	var inPlace bool
	c := &cobra.Command{
		Use: "validate FILE", GroupID: groupFarm, Short: "Check a farm.yaml, offline",
		Long: `Validate reads a farm.yaml and shows every mistake with its line, a picture of
the place and what may be meant. It asks no controller, so it cannot tell
whether the secrets that the file names were set; plan can.`,
		Example: "certfarm validate farm.yaml\ncertfarm validate - < farm.yaml",
		Args:    args(1, 1, "a farm.yaml"),
		RunE: func(_ *cobra.Command, given []string) error {
			_, p, err := a.read(given[0], inPlace)
			if err != nil {
				return err
			}
			targets := 0
			for _, s := range p.Farm.Sites {
				targets += len(s.Targets)
			}
			sum := struct {
				Type    string `json:"type"`
				Farm    string `json:"farm"`
				Sites   int    `json:"sites"`
				Nodes   int    `json:"nodes"`
				Targets int    `json:"targets"`
			}{"valid", p.Farm.Name, len(p.Farm.Sites), len(p.Farm.Nodes), targets}
			if a.json {
				return a.object(sum)
			}
			a.print("%s is good: farm %s with %s, %s and %s", given[0], sum.Farm,
				farm.Count(sum.Sites, "site"), farm.Count(sum.Nodes, "node"), farm.Count(sum.Targets, "target"))
			return nil
		},
	}
	c.Flags().BoolVar(&inPlace, "in-place", false, "allow secrets as file: and env:, as `run --once` does")
	return c
}

func newSchema(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "schema", GroupID: groupFarm, Short: "Print the JSON Schema of farm.yaml",
		Long: `Schema prints the JSON Schema of farm.yaml, with the options of every kind of
target. Editors that know the YAML language server use it by a first line like
  # yaml-language-server: $schema=farm.schema.json`,
		Example: "certfarm schema > farm.schema.json",
		Args:    args(0, 0, "nothing"),
		RunE: func(*cobra.Command, []string) error {
			text, err := schema()
			if err != nil {
				return err
			}
			_, err = a.out.Write(text)
			return err
		},
	}
}

// schema is the schema of farm.yaml with the options of every kind, made from
// the structs that read them.
func schema() ([]byte, error) {
	r := jsonschema.Reflector{Anonymous: true, DoNotReference: true, RequiredFromJSONSchemaTags: true, LookupComment: comment}
	kinds := map[string]json.RawMessage{}
	for name, k := range target.All() {
		s := r.Reflect(k.Options)
		s.Version, s.ID, s.Description = "", "", k.Doc
		text, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("schema of the options of %s: %w", name, err)
		}
		kinds[name] = text
	}
	text, err := config.SchemaWith(kinds)
	return append(bytes.TrimSpace(text), '\n'), err
}

// comment is a field's description.
func comment(t reflect.Type, field string) string {
	if t.Kind() != reflect.Struct {
		return ""
	}
	f, _ := t.FieldByName(field)
	return f.Tag.Get("doc")
}
