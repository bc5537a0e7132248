package snippet

import "github.com/certfarm/certfarm/internal/farm"

// haproxy runs http-request rules in the order that they stand in, before any
// use_backend; "allow" ends them, so that a redirect to https does not come.
func haproxy() server {
	return server{
		name:  HAProxy,
		rules: map[string]func(rule) Snippet{farm.Gateway: haproxyGateway, farm.Redirect: haproxyRedirect, farm.Stateless: haproxyStateless},
		instead: map[string]string{
			farm.Distribute: "it serves no files; print the rule for the nodes' own web server, to which HAProxy only has to pass the path on port 80, or use --via gateway",
		},
		notes: []string{
			"It must stand before every other http-request rule of the frontend, such as a redirect to https or a login. A plain `redirect …` line in the frontend runs all the same: give it `unless { path_beg " + Path + " }`.",
			"Then: haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy",
		},
	}
}

const haproxyFrontend = "/etc/haproxy/haproxy.cfg, first in the frontend that has port 80 (mode http)"

// A name may be followed by a port in the Host header.
const haproxyNames = `
{{- range .Lines}}
    acl {{$.ID}}_name hdr(host),regsub(:[0-9]+$,) -i -m str {{.}}
{{- end}}
`

func haproxyGateway(r rule) Snippet {
	return Snippet{Parts: []Part{
		{haproxyFrontend, r.fill(`
    acl {{.ID}}_path path -m reg ^{{.PathRE}}{{.Token}}$` + haproxyNames + `    http-request allow if {{.ID}}_path {{.ID}}_name
    use_backend {{.ID}} if {{.ID}}_path {{.ID}}_name
`)},
		{"/etc/haproxy/haproxy.cfg, beside the other backends", r.fill(`
backend {{.ID}}
    mode http
    balance roundrobin
    option redispatch 1
    retries 2
    timeout connect 2s
    timeout server 5s
    default-server check inter 2s fall 2 rise 1
{{- range .Controllers}}
    server {{.Label}} {{.Addr}}{{if not .IsIP}} init-addr last,libc,none{{end}}
{{- end}}
`)},
	}}
}

func haproxyRedirect(r rule) Snippet {
	return Snippet{Parts: []Part{{haproxyFrontend, r.fill(`
    acl {{.ID}}_path path -m reg ^{{.PathRE}}{{.Token}}$` + haproxyNames + `    http-request redirect code 302 location "{{.To}}%[path]" if {{.ID}}_path {{.ID}}_name
`)}}}
}

func haproxyStateless(r rule) Snippet {
	return Snippet{
		Parts: []Part{{haproxyFrontend, r.fill(`
    acl {{.ID}}_path path -m reg ^{{.PathRE}}{{.Token}}$` + haproxyNames + `    http-request return status 200 content-type application/octet-stream lf-string "%[path,field(-1,/)].{{.Thumbprint}}" if {{.ID}}_path {{.ID}}_name
`)}},
		Notes: []string{"Needs HAProxy 2.2 or newer."},
	}
}
