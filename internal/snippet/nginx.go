package snippet

import "github.com/certfarm/certfarm/internal/farm"

// nginx chooses the location with "^~" before any regular expression (such as the
// usual "deny all" for names with a dot), and what is returned in it comes before
// logins. Only a rewrite or return in the server block itself comes first.
func nginx() server {
	return server{
		name: Nginx,
		rules: map[string]func(rule) Snippet{
			farm.Gateway: nginxGateway, farm.Redirect: nginxRedirect, farm.Stateless: nginxStateless, farm.Distribute: nginxDistribute,
		},
		notes: []string{
			"A `return` or `rewrite` directly in the server block, such as a redirect to https, runs before every location: move it into `location / { … }`.",
			"Then: nginx -t && nginx -s reload",
		},
	}
}

func (r rule) nginxServer() string {
	return "in every server { } that listens on port 80 for " + r.Shown()
}

func nginxGateway(r rule) Snippet {
	return Snippet{
		Parts: []Part{
			{"/etc/nginx/conf.d/" + r.Dash() + ".conf, which is inside http { }", r.fill(`
upstream {{.ID}} {
{{- range .Controllers}}
    server {{.Addr}} max_fails=1 fail_timeout=5s;
{{- end}}
}
`)},
			{r.nginxServer(), r.fill(`
location ^~ {{.Path}} {
    auth_basic off;
    allow all;
    proxy_pass http://{{.ID}};
    proxy_set_header Host $host;
    proxy_connect_timeout 2s;
    proxy_read_timeout 5s;
    proxy_next_upstream error timeout http_502 http_503 http_504;
}
`)},
		},
		Notes: []string{"An `auth_request` around it must be switched off inside the location too: auth_request off;"},
	}
}

func nginxRedirect(r rule) Snippet {
	return Snippet{Parts: []Part{{r.nginxServer(), r.fill(`
location ^~ {{.Path}} {
    return 302 {{.To}}$request_uri;
}
`)}}}
}

func nginxStateless(r rule) Snippet {
	return Snippet{Parts: []Part{{r.nginxServer(), r.fill(`
location ^~ {{.Path}} {
    location ~ "^{{.PathRE}}({{.Token}})$" {
        default_type application/octet-stream;
        return 200 "$1.{{.Thumbprint}}";
    }
    return 404;
}
`)}}}
}

func nginxDistribute(r rule) Snippet {
	return Snippet{
		Parts: []Part{{r.nginxServer(), r.fill(`
location ^~ {{.Path}} {
    auth_basic off;
    allow all;
    root {{.Webroot}};
    default_type application/octet-stream;
    try_files $uri =404;
}
`)}},
		Notes: []string{"An `auth_request` around it must be switched off inside the location too: auth_request off;"},
	}
}
