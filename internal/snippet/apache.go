package snippet

import "github.com/certfarm/certfarm/internal/farm"

// apache does it all with mod_rewrite: in a virtual host its rules come before
// Redirect, Alias and ProxyPass, wherever these stand, and END keeps later rules
// away. What must not need a login is said in <If>, which is merged last.
func apache() server {
	return server{
		name: Apache,
		rules: map[string]func(rule) Snippet{
			farm.Gateway: apacheGateway, farm.Redirect: apacheRedirect, farm.Stateless: apacheStateless, farm.Distribute: apacheDistribute,
		},
		notes: []string{
			"It must stand before every other RewriteRule of the virtual host, such as a redirect to https.",
			"Then: apachectl configtest && apachectl graceful",
		},
	}
}

func (r rule) apacheHost() string {
	return "first in every <VirtualHost *:80> for " + r.Shown()
}

// open lets everybody in, whatever the sections around it ask for.
const open = `<If "%{REQUEST_URI} =~ m#^{{.PathRE}}#">
    Require all granted
</If>
`

func apacheGateway(r rule) Snippet {
	return Snippet{
		Parts: []Part{{r.apacheHost(), r.fill(`
<Proxy "balancer://{{.ID}}">
{{- range .Controllers}}
    BalancerMember "http://{{.Addr}}" connectiontimeout=2 timeout=5 retry=5
{{- end}}
</Proxy>
RewriteEngine On
RewriteRule "^{{.PathRE}}({{.Token}})$" "balancer://{{.ID}}{{.Path}}$1" [P,END]
` + open)}},
		Notes: []string{"Modules: a2enmod rewrite proxy proxy_http proxy_balancer lbmethod_byrequests"},
	}
}

func apacheRedirect(r rule) Snippet {
	return Snippet{
		Parts: []Part{{r.apacheHost(), r.fill(`
RewriteEngine On
RewriteRule "^{{.PathRE}}({{.Token}})$" "{{.To}}{{.Path}}$1" [R=302,END]
`)}},
		Notes: []string{"Modules: a2enmod rewrite"},
	}
}

// apacheStateless answers with an error document of status 200, the only text
// that Apache itself makes from a request. Its content type would be text/html.
func apacheStateless(r rule) Snippet {
	return Snippet{
		Parts: []Part{{r.apacheHost(), r.fill(`
RewriteEngine On
RewriteRule "^{{.PathRE}}{{.Token}}$" "-" [R=200,END]
<LocationMatch "^{{.PathRE}}(?<certfarm>{{.Token}})$">
    ErrorDocument 200 "%{env:MATCH_CERTFARM}.{{.Thumbprint}}"
    <IfModule mod_headers.c>
        Header always set Content-Type application/octet-stream
    </IfModule>
</LocationMatch>
`)}},
		Notes: []string{"Modules: a2enmod rewrite headers", "Needs Apache 2.4.13 or newer."},
	}
}

func apacheDistribute(r rule) Snippet {
	return Snippet{
		Parts: []Part{{r.apacheHost(), r.fill(`
RewriteEngine On
RewriteRule "^{{.PathRE}}({{.Token}})$" "{{.Webroot}}{{.Path}}$1" [END]
<Directory "{{.Webroot}}{{.Path}}">
    AllowOverride None
    Options None
    ForceType application/octet-stream
    Require all granted
</Directory>
` + open)}},
		Notes: []string{"Modules: a2enmod rewrite"},
	}
}
