package lab

import (
	"encoding/json"
	"time"
)

// mixedTemplate is the farm.yaml of a mixed farm: the seed's cases, once each.
const mixedTemplate = `# This farm.yaml was written by the lab: one site on every sort of target.
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
    targets: # changed one at a time, in the order of their names
{{- range .Shop.Web}}
      - kind: apache # apache2ctl is the node's own: it tests, and restarts gracefully
        on: {{.Name}}
        options: {pem: {{quote $.Shop.PEM}}, store: {{$.Shop.Store}}}
        endpoints: [{port: {{port .HTTPSAddr}}}]
{{- end}}
{{- range .Shop.Edge}}
      - kind: haproxy # its runtime API, without a reload
        name: edge
        on: {{.Name}}
        options: {pem: {{quote $.Shop.PEM}}, store: {{$.Shop.Store}}, runtime: [haproxy-admin]}
        endpoints: [{port: {{port .HTTPSAddr}}}]
{{- end}}
      - kind: ccs # IIS reads it every {{.Shop.Every}}; the canary is written first, and seen at every reader
        name: iis
        options: {{json .Shop.Share.Options}}
        secrets:
          store_password: {file: {{quote .Shop.Share.PasswordFile}}}
{{- if .Shop.Share.AccountFile}}
          password: {file: {{quote .Shop.Share.AccountFile}}}
{{- end}}
        endpoints: # iis1 and iis2
{{- range .Shop.IIS}}
          - {address: {{quote .HTTPSAddr}}}
{{- end}}
      - kind: azure-key-vault # its readers take {{.Shop.Every}} to see it
        name: vault
        options: {vault: {{quote .Shop.Vault}}, certificate: {{.Shop.Certificate}}, lag: {{.Shop.Every}}}
        endpoints: # app1 and app2 read the vault
{{- range .Shop.Apps}}
          - {address: {{quote .HTTPSAddr}}}
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

// shop is what mixedTemplate says of the machines.
type shop struct {
	Web, Edge          []*Node
	IIS, Apps          []*Reader
	PEM, Store         string
	Every              time.Duration
	Share              shareWords
	Vault, Certificate string
}

// shareWords is what mixedTemplate says of the share.
type shareWords struct {
	Options                   map[string]any // of the kind ccs
	PasswordFile, AccountFile string
}

// mixedWords are what mixedTemplate needs; nothing for another farm.
func (m *Machines) mixedWords() shop {
	if !m.Layout.Mixed {
		return shop{}
	}
	o := m.share.options
	words := shareWords{PasswordFile: m.share.passwordFile, Options: map[string]any{
		"names": m.clientNames(), "canary": o.Canary, "polling_interval": o.PollingInterval,
	}}
	if m.share.smbd == nil {
		words.Options["path"] = o.Path
	} else {
		words.Options["share"], words.Options["port"], words.Options["user"] = o.Share, o.Port, o.User
		words.AccountFile = m.share.accountFile
	}
	return shop{
		Web: m.Nodes[:2], Edge: m.Nodes[2:], IIS: m.Readers[:2], Apps: m.Readers[2:],
		PEM: DefaultPEM, Store: StoreFolder, Every: m.Layout.Poll, Share: words,
		Vault: vaultURL, Certificate: vaultCertificate,
	}
}

// clientNames are the site's names that clients ask for.
func (m *Machines) clientNames() []string {
	var all []string
	for _, name := range m.Layout.Names {
		if name != canaryName {
			all = append(all, name)
		}
	}
	return all
}

// asJSON is a value on one line, which is YAML too.
func asJSON(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}
