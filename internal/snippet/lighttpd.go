package snippet

import "github.com/certfarm/certfarm/internal/farm"

// lighttpd lets the last condition that holds decide, so the rule stands at the
// end and takes back what others have set.
func lighttpd() server {
	return server{
		name: Lighttpd,
		rules: map[string]func(rule) Snippet{
			farm.Gateway: lighttpdGateway, farm.Redirect: lighttpdRedirect, farm.Stateless: lighttpdStateless, farm.Distribute: lighttpdDistribute,
		},
		notes: []string{
			"The last condition that holds decides: it must stand after every other one, such as a redirect to https.",
			"lighttpd warns of an unknown config-key for a line of a module that is not loaded (auth, redirect, rewrite): such a line may be left out.",
			"Then: lighttpd -tt -f /etc/lighttpd/lighttpd.conf && systemctl restart lighttpd",
		},
	}
}

func (r rule) lighttpdWhere() string {
	return "/etc/lighttpd/conf-enabled/99-" + r.Dash() + ".conf, or the end of lighttpd.conf"
}

const lighttpdHost = `
$HTTP["host"] =~ "^{{.Hosts}}$" {
  $HTTP["url"] =~ "^{{.PathRE}}{{.Token}}$" {
`

func lighttpdGateway(r rule) Snippet {
	return Snippet{
		Parts: []Part{{r.lighttpdWhere(), r.fill(lighttpdHost + `    url.redirect = ()
    url.rewrite-once = ()
    auth.require = ()
    proxy.balance = "round-robin"
    proxy.server = ( "" => (
{{- range .Controllers}}
      ( "host" => "{{.Host}}", "port" => {{.Port}}, "connect-timeout" => 2, "read-timeout" => 5, "disable-time" => 5 ),
{{- end}}
    ) )
  }
}
`)}},
		Notes: []string{"Modules: lighty-enable-mod proxy"},
	}
}

func lighttpdRedirect(r rule) Snippet {
	return Snippet{
		Parts: []Part{{r.lighttpdWhere(), r.fill(lighttpdHost + `    auth.require = ()
    url.rewrite-once = ()
    url.redirect = ( "^{{.PathRE}}({{.Token}})$" => "{{.To}}{{.Path}}$1" )
    url.redirect-code = 302
  }
}
`)}},
		Notes: []string{`Modules: mod_redirect in server.modules`},
	}
}

func lighttpdStateless(r rule) Snippet {
	script := "/etc/lighttpd/" + r.Dash() + ".lua"
	return Snippet{
		Parts: []Part{
			{script, r.fill(`
local token = string.match(lighty.r.req_attr["uri.path"], "^/%.well%-known/acme%-challenge/([%w_%-]+)$")
if not token or #token > 128 then
  return 0
end
lighty.r.resp_header["Content-Type"] = "application/octet-stream"
lighty.r.resp_body.set({ token .. ".{{.Thumbprint}}" })
return 200
`)},
			{r.lighttpdWhere(), r.fill(lighttpdHost + `    url.redirect = ()
    url.rewrite-once = ()
    auth.require = ()
    magnet.attract-raw-url-to = ( "` + script + `" )
  }
}
`)},
		},
		Notes: []string{"Modules: apt-get install lighttpd-modules-lua && lighty-enable-mod magnet; needs lighttpd 1.4.60 or newer."},
	}
}

func lighttpdDistribute(r rule) Snippet {
	return Snippet{
		Parts: []Part{{r.lighttpdWhere(), r.fill(lighttpdHost + `    url.redirect = ()
    url.rewrite-once = ()
    auth.require = ()
    alias.url = ( "{{.Path}}" => "{{.Webroot}}{{.Path}}" )
    mimetype.assign = ( "" => "application/octet-stream" )
  }
}
`)}},
		Notes: []string{"Modules: mod_alias in server.modules"},
	}
}
