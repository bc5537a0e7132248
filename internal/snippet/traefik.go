package snippet

import (
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

func traefik() server {
	return server{
		name:  Traefik,
		rules: map[string]func(rule) Snippet{farm.Gateway: traefikGateway, farm.Redirect: traefikRedirect},
		instead: map[string]string{
			farm.Stateless:  "it makes no answer of its own without a plugin; use --via gateway or --via redirect",
			farm.Distribute: "it serves no files; print the rule for the nodes' own web server, to which Traefik only has to pass the path on port 80, or use --via gateway",
		},
		notes: []string{
			"`web` is the entry point on port 80; put your own name for it.",
			"A redirection of the whole entry point (entryPoints.web.http.redirections) comes before all routers: give it `priority: 1`, or redirect by a router. Traefik's own httpChallenge answers this path by itself on the entry point it is set to: take it off there.",
			"Traefik reads the file by itself (providers.file.directory with watch: true); nothing is to be reloaded.",
			"Written after Traefik 3's reference and not tried on a real Traefik: run a preflight after it.",
		},
	}
}

const traefikWhere = " in the folder of Traefik's file provider"

// Match is the rule of a router.
func (r rule) Match() string {
	var hosts []string
	for _, n := range r.Names {
		hosts = append(hosts, "Host(`"+n+"`)")
	}
	return "(" + strings.Join(hosts, " || ") + ") && PathPrefix(`" + Path + "`)"
}

// The controllers say 404 where no token is asked for: so they are seen to live.
func traefikGateway(r rule) Snippet {
	return Snippet{Parts: []Part{{r.Dash() + ".yaml" + traefikWhere, r.fill(`
http:
  routers:
    {{.Dash}}:
      rule: "{{.Match}}"
      entryPoints: [web]
      priority: 100000
      middlewares: [{{.Dash}}]
      service: {{.Dash}}
  middlewares:
    {{.Dash}}:
      retry:
        attempts: {{len .Controllers}}
  services:
    {{.Dash}}:
      loadBalancer:
        healthCheck:
          path: {{.Path}}
          status: 404
          interval: 5s
          timeout: 2s
        servers:
{{- range .Controllers}}
          - url: "http://{{.Addr}}"
{{- end}}
`)}}}
}

func traefikRedirect(r rule) Snippet {
	return Snippet{Parts: []Part{{r.Dash() + ".yaml" + traefikWhere, r.fill(`
http:
  routers:
    {{.Dash}}:
      rule: "{{.Match}}"
      entryPoints: [web]
      priority: 100000
      middlewares: [{{.Dash}}]
      service: noop@internal
  middlewares:
    {{.Dash}}:
      redirectRegex:
        regex: '^https?://[^/]+{{.PathRE}}({{.Token}})$'
        replacement: '{{.To}}{{.Path}}${1}'
        permanent: false
`)}}}
}
