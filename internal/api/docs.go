package api

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// The page of the description and what it loads beside the dashboard's own sheet. It
// needs no script.
//
//go:embed docs
var docFiles embed.FS

// A docPage is the description for people.
type docPage struct {
	Version  string
	Groups   []docGroup
	Schemas  []docSchema
	Problems []docProblem
}

type docGroup struct {
	Tag    string
	Routes []docRoute
}

// A docRoute is one route with all that can be sent to it.
type docRoute struct {
	Route
	Params []docParam
	Body   docType // what is sent; nothing: zero
	Answer docType
	Stream bool
	Curl   string
}

type docParam struct {
	Name, In, Doc, Default string
	Type                   docType
	Required               bool
}

// A docType is a type in words, with the schema that it leads to, if it has a name.
type docType struct{ Text, Schema string }

type docSchema struct {
	Name   string
	Fields []docField
}

type docField struct {
	Name, Doc string
	Type      docType
	Required  bool
}

type docProblem struct {
	Kind, Title, Type string
	Status            int
}

// document serves the description for people at /api/docs.
func document(mux *http.ServeMux, spec *huma.OpenAPI) error {
	t, err := template.ParseFS(docFiles, "docs/page.html")
	if err != nil {
		return err
	}
	var page bytes.Buffer
	if err := t.Execute(&page, docsOf(spec)); err != nil {
		return fmt.Errorf("the page of the API: %w", err)
	}
	mux.HandleFunc("GET /api/docs", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(page.Bytes()))
	})
	mux.HandleFunc("GET /api/docs.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, docFiles, "docs/docs.css")
	})
	return nil
}

func docsOf(spec *huma.OpenAPI) docPage {
	page := docPage{Version: spec.Info.Version}
	for _, r := range Routes() {
		d := docRoute{Route: r, Curl: curl(r)}
		d.describe(operationOf(spec.Paths[r.Path], r.Method))
		at := slices.IndexFunc(page.Groups, func(g docGroup) bool { return g.Tag == r.Tag })
		if at < 0 {
			at = len(page.Groups)
			page.Groups = append(page.Groups, docGroup{Tag: r.Tag})
		}
		page.Groups[at].Routes = append(page.Groups[at].Routes, d)
	}
	all := spec.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		page.Schemas = append(page.Schemas, docSchema{name, fieldsOf(all[name])})
	}
	for _, k := range kinds() {
		page.Problems = append(page.Problems, docProblem{Kind: k.name, Title: k.title, Type: problemBase + k.name, Status: k.status})
	}
	return page
}

func operationOf(p *huma.PathItem, method string) *huma.Operation {
	switch method {
	case http.MethodPost:
		return p.Post
	case http.MethodPut:
		return p.Put
	case http.MethodDelete:
		return p.Delete
	}
	return p.Get
}

func (d *docRoute) describe(op *huma.Operation) {
	for _, p := range op.Parameters {
		if p.In == "path" && p.Description == "" && p.Schema.Description == "" {
			continue // its name says it
		}
		one := docParam{Name: p.Name, In: p.In, Doc: cmp.Or(p.Description, p.Schema.Description), Type: typeOf(p.Schema), Required: p.Required}
		if p.Schema.Default != nil {
			one.Default = fmt.Sprint(p.Schema.Default)
		}
		d.Params = append(d.Params, one)
	}
	if op.RequestBody != nil {
		for _, m := range op.RequestBody.Content {
			d.Body = typeOf(m.Schema)
		}
	}
	for status, answer := range op.Responses {
		if status != "default" {
			d.answers(answer)
		}
	}
}

func (d *docRoute) answers(r *huma.Response) {
	for kind, m := range r.Content {
		if d.Stream = kind == "text/event-stream"; !d.Stream {
			d.Answer = typeOf(m.Schema)
		}
	}
}

// curl is an example of a route: what is in capitals is to be filled in.
func curl(r Route) string {
	path := r.Path
	for before, after, more := strings.Cut(path, "{"); more; before, after, more = strings.Cut(path, "{") {
		word, rest, _ := strings.Cut(after, "}")
		path = before + strings.ToUpper(word) + rest
	}
	text := `curl -H "Authorization: Bearer $(cat token)"`
	if r.Method != http.MethodGet {
		text += " -X " + r.Method
	}
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		text += " --json @body.json"
	}
	return text + " https://certfarm.example.com:8403" + path
}

func fieldsOf(s *huma.Schema) (all []docField) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		all = append(all, docField{Name: name, Doc: p.Description, Type: typeOf(p), Required: slices.Contains(s.Required, name)})
	}
	return all
}

func typeOf(s *huma.Schema) docType {
	if s == nil {
		return docType{Text: "anything"}
	}
	if s.Ref != "" {
		name := s.Ref[strings.LastIndex(s.Ref, "/")+1:]
		return docType{name, name}
	}
	switch s.Type {
	case huma.TypeArray:
		of := typeOf(s.Items)
		return docType{"list of " + of.Text, of.Schema}
	case huma.TypeObject:
		if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
			value := typeOf(of)
			return docType{"names with " + value.Text, value.Schema}
		}
	case "":
		return docType{Text: "anything"}
	}
	if len(s.Enum) > 0 {
		var words []string
		for _, e := range s.Enum {
			words = append(words, fmt.Sprint(e))
		}
		return docType{Text: strings.Join(words, ", ")}
	}
	text := s.Type
	if s.Format != "" {
		text += " (" + s.Format + ")"
	}
	return docType{Text: text}
}
