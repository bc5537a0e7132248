package snippet

import (
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// caddy takes handle blocks one instead of the other, the narrowest first; bare
// directives of a site block (redir, basicauth) come before all of them.
func caddy() server {
	return server{
		name: Caddy,
		rules: map[string]func(rule) Snippet{
			farm.Gateway: caddyGateway, farm.Redirect: caddyRedirect, farm.Stateless: caddyStateless, farm.Distribute: caddyDistribute,
		},
		notes: []string{
			"Where the Caddyfile has such a block already, put only the inner handle into it. Directives that stand bare in the block (redir, basicauth, rewrite) run before any handle: put them into the `handle { }` for all else.",
			"The last handle sends all else to https, as Caddy does by itself where there is no block for http; put there what you serve over http.",
			"Caddy may log \"no information found to solve challenge\" for each question: that is its own ACME client, which passes it on.",
			"Then: caddy validate --config /etc/caddy/Caddyfile && caddy reload --config /etc/caddy/Caddyfile",
		},
	}
}

// caddySite wraps a handle in the site block for plain HTTP.
func (r rule) caddySite(handle string) []Part {
	var hosts []string
	for _, n := range r.Bracketed() {
		hosts = append(hosts, "http://"+n)
	}
	return []Part{{"/etc/caddy/Caddyfile", strings.Join(hosts, ", ") + " {\n" + r.fill(handle) + "\thandle {\n\t\tredir https://{host}{uri} 308\n\t}\n}\n"}}
}

const caddyMatcher = `
	@{{.ID}} path_regexp {{.ID}} ^{{.PathRE}}({{.Token}})$
	handle @{{.ID}} {
`

func caddyGateway(r rule) Snippet {
	return Snippet{Parts: r.caddySite(caddyMatcher + `		reverse_proxy{{range .Controllers}} {{.Addr}}{{end}} {
			lb_policy round_robin
			lb_try_duration 5s
			fail_duration 5s
			transport http {
				dial_timeout 2s
				response_header_timeout 5s
			}
		}
	}
`)}
}

func caddyRedirect(r rule) Snippet {
	return Snippet{Parts: r.caddySite(caddyMatcher + `		redir {{.To}}{{.Path}}{re.{{.ID}}.1} 302
	}
`)}
}

func caddyStateless(r rule) Snippet {
	return Snippet{Parts: r.caddySite(caddyMatcher + `		header Content-Type application/octet-stream
		respond "{re.{{.ID}}.1}.{{.Thumbprint}}" 200
	}
`)}
}

func caddyDistribute(r rule) Snippet {
	return Snippet{Parts: r.caddySite(caddyMatcher + `		root * {{.Webroot}}
		header Content-Type application/octet-stream
		file_server
	}
`)}
}
