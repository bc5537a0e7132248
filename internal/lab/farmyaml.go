package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// A FarmFile is what the lab's farm.yaml says beyond its machines.
type FarmFile struct {
	Directory string      // URL of the CA's ACME directory
	Profile   string      // ACME profile
	Roots     string      // PEM of the CA that signed the directory's certificate, and of the issuing roots
	KeyTypes  []string    // of the site; none: ec256
	Policy    farm.Policy // the zero value: LabPolicy
}

// LabPolicy is how careful the lab is: one canary, little budget, and times so
// short that every fault has ended within 30 seconds.
func LabPolicy() farm.Policy {
	return farm.Policy{
		Canary: farm.Share{Count: 1}, Soak: time.Second,
		Deadline: 4 * time.Second, HealthyDeadline: 4 * time.Second,
		AbsentMax: farm.Share{Percent: 5, Least: 1}, Drift: farm.Heal,
	}
}

// farmTemplate is farm.yaml. Every text in it is quoted by Go's rules, which
// are YAML's for double quotes as far as strconv.Quote goes.
const farmTemplate = `# This farm.yaml was written by the lab: one site on {{len .Machines.Nodes}} nodes behind a balancer.
farm: lab
resolvers: {".": [{{quote .Machines.DNS.Addr}}]}

issuers:
  pebble:
    acme: {{quote .File.Directory}}
    contact: ["mailto:ops@shop.test"]
    profile: {{quote .File.Profile}}
    roots: |
{{indent .File.Roots}}
nodes:
{{- range .Machines.Nodes}}
  {{.Name}}:
    address: 127.0.0.1
    labels: {pool: web}
    ssh:
      port: {{port .SSHAddr}}
      user: {{$.User}}
      key: {file: {{quote $.Machines.KeyFile}}}
      host_key: [{{quote .HostKey}}]
      connect_timeout: 2s
{{- end}}

sites:
  shop:
    names: [{{join .Machines.Layout.Names}}]
    issuer: pebble
    keys: [{{join .Keys}}]
    strategy: central
    validation: {method: http-01, via: gateway}
    targets: # one for each node: all are on 127.0.0.1, each with ports of its own
{{- range $i, $node := .Machines.Nodes}}
      - kind: nginx
        on: {{.Name}}
        options: {{if $i}}*webd{{else}}&webd {{$.Options}}{{end}}
        endpoints: [{port: {{port .HTTPSAddr}}}]
{{- end}}
    balancers:
      - address: {{quote .Machines.Balancer.HTTPSAddr}}
    policy:
      canary: {{.Policy.Canary}}
      max_parallel: {{.Parallel}}
      soak: {{.Policy.Soak}}
      deadline: {{.Policy.Deadline}}
      healthy_deadline: {{.Policy.HealthyDeadline}}
      failure_budget: {{.Policy.FailureBudget}}
      absent_max: {{.Policy.AbsentMax}}
      drift: {{.Policy.Drift}}
`

// FarmYAML is the text of a farm.yaml for the machines. It names the SSH key by
// its file, which only `lab` and `run --once` take.
func (m *Machines) FarmYAML(f FarmFile) ([]byte, error) {
	text := farmTemplate
	if m.Layout.Mixed {
		text = mixedTemplate
	}
	if f.Policy.Deadline == 0 {
		f.Policy = LabPolicy()
		if m.Layout.Mixed {
			f.Policy = MixedPolicy()
		}
	}
	if len(f.KeyTypes) == 0 {
		f.KeyTypes = []string{string(farm.EC256)}
	}
	parallel := strconv.Itoa(f.Policy.MaxParallel)
	if f.Policy.MaxParallel == 0 {
		parallel = "max(2, 25%)"
	}
	t, err := template.New("farm.yaml").Funcs(template.FuncMap{
		"quote": strconv.Quote, "join": quoted, "port": portOf, "indent": indented, "json": asJSON,
	}).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read the template of farm.yaml: %w", err)
	}
	var b strings.Builder
	err = t.Execute(&b, map[string]any{
		"File": f, "Machines": m, "User": LoginUser, "Keys": f.KeyTypes, "Policy": f.Policy,
		"Parallel": parallel, "Options": m.options(),
		"Shop": m.mixedWords(),
	})
	if err != nil {
		return nil, fmt.Errorf("write farm.yaml: %w", err)
	}
	return []byte(b.String()), nil
}

// WriteFarm writes farm.yaml into the lab's folder and returns its name.
func (m *Machines) WriteFarm(f FarmFile) (file string, err error) {
	text, err := m.FarmYAML(f)
	if err != nil {
		return "", err
	}
	file = filepath.Join(m.Layout.Dir, "farm.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", fmt.Errorf("write the lab's farm.yaml: %w", err)
	}
	return file, nil
}

// options are those of the nginx kind: where the files are, and webd's commands.
func (m *Machines) options() string {
	first := m.Layout.Pairs[0]
	files := "pem: " + strconv.Quote(first.Chain)
	if first.Key != "" {
		files = fmt.Sprintf("chain: %q, key: %q", first.Chain, first.Key)
	}
	return fmt.Sprintf("{%s, store: %s, test: [webd, -t], reload: [webd, reload], start: [webd, start]}", files, StoreFolder)
}

func quoted(words []string) string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = strconv.Quote(w)
	}
	return strings.Join(all, ", ")
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// indented is a PEM text as the lines of a block below `roots:`.
func indented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("      " + strings.TrimRight(line, "\r\n") + "\n")
	}
	return b.String()
}
