package snippet

import "github.com/certfarm/certfarm/internal/farm"

func envoy() server {
	return server{
		name:  Envoy,
		rules: map[string]func(rule) Snippet{farm.Gateway: envoyGateway, farm.Redirect: envoyRedirect, farm.Stateless: envoyStateless},
		instead: map[string]string{
			farm.Distribute: "it serves no files; print the rule for the nodes' own web server, to which Envoy only has to pass the path on port 80, or use --via gateway",
		},
		notes: []string{
			"The first route that matches is taken: it must stand before all others. A virtual host with `require_tls: ALL` redirects before any route: redirect by a route instead.",
			"Then: envoy --mode validate -c envoy.yaml, and a hot restart, or the new configuration through your control plane.",
			"Written after Envoy's reference and not tried on a real Envoy: run a preflight after it.",
		},
	}
}

func (r rule) envoyRoutes() string {
	return "first under routes: of the virtual host that has " + r.Shown() + " on port 80"
}

const envoyMatch = `
- match:
    safe_regex:
      regex: '{{.PathRE}}{{.Token}}'
`

func envoyGateway(r rule) Snippet {
	return Snippet{Parts: []Part{
		{r.envoyRoutes(), r.fill(envoyMatch + `  route:
    cluster: {{.ID}}
    timeout: 5s
    retry_policy:
      retry_on: connect-failure,refused-stream,503
      num_retries: {{len .Controllers}}
  typed_per_filter_config:
    envoy.filters.http.ext_authz:
      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
      disabled: true
`)},
		{"under static_resources: clusters:", r.fill(`
- name: {{.ID}}
  type: STRICT_DNS
  connect_timeout: 2s
  lb_policy: ROUND_ROBIN
  health_checks:
    - timeout: 2s
      interval: 5s
      unhealthy_threshold: 1
      healthy_threshold: 1
      tcp_health_check: {}
  load_assignment:
    cluster_name: {{.ID}}
    endpoints:
      - lb_endpoints:
{{- range .Controllers}}
          - endpoint:
              address:
                socket_address: { address: "{{.Host}}", port_value: {{.Port}} }
{{- end}}
`)},
	}, Notes: []string{"Leave typed_per_filter_config out where no ext_authz filter is configured."}}
}

func envoyRedirect(r rule) Snippet {
	return Snippet{Parts: []Part{{r.envoyRoutes(), r.fill(envoyMatch + `  redirect:
    scheme_redirect: {{.ToScheme}}
    host_redirect: "{{.ToHost}}"
    port_redirect: {{if eq .ToScheme "https"}}443{{else}}80{{end}}
    response_code: FOUND
`)}}, Notes: []string{"A filter for logins (ext_authz, jwt_authn) answers before the router: take the path out there."}}
}

func envoyStateless(r rule) Snippet {
	return Snippet{Parts: []Part{{"first under http_filters: of the connection manager that has port 80", r.fill(`
- name: envoy.filters.http.lua
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
    default_source_code:
      inline_string: |
        local names = {
{{- range .Bracketed}}
          ["{{.}}"] = true,
{{- end}}
        }
        function envoy_on_request(handle)
          local headers = handle:headers()
          local name = string.lower(string.gsub(headers:get(":authority") or "", ":%d+$", ""))
          local token = string.match(headers:get(":path") or "", "^/%.well%-known/acme%-challenge/([%w_%-]+)$")
          if token and #token <= 128 and names[name] then
            handle:respond({ [":status"] = "200", ["content-type"] = "application/octet-stream" }, token .. ".{{.Thumbprint}}")
          end
        end
`)}}}
}
