package snippet

import "github.com/certfarm/certfarm/internal/farm"

func iis() server {
	return server{
		name:  IIS,
		rules: map[string]func(rule) Snippet{farm.Gateway: iisGateway, farm.Redirect: iisRedirect, farm.Distribute: iisDistribute},
		instead: map[string]string{
			farm.Stateless: "it makes no answer of its own from a rule; use --via redirect or --via distribute",
		},
		notes: []string{
			"IIS applies a change of its configuration files by itself; nothing is to be restarted.",
			"Written after Microsoft's reference and not tried on a real IIS: run a preflight after it.",
		},
	}
}

const iisRewrite = "It must stand before every other rule, such as a redirect to https. `Require SSL` (sslFlags) of the site, or a login that is no rule, comes first all the same: take the path out there."

const iisRule = `    <rule name="{{.Dash}}" stopProcessing="true">
      <match url="^/?\.well-known/acme-challenge/({{.Token}})$" />
      <conditions>
        <add input="{HTTP_HOST}" pattern="^{{.Hosts}}$" />
      </conditions>
`

func iisGateway(r rule) Snippet {
	return Snippet{
		Parts: []Part{
			{`%windir%\System32\inetsrv\config\applicationHost.config, inside <configuration>`, r.fill(`
<webFarms>
  <webFarm name="{{.Dash}}" enabled="true">
{{- range .Controllers}}
    <server address="{{.Host}}" enabled="true">
      <applicationRequestRouting httpPort="{{.Port}}" />
    </server>
{{- end}}
    <applicationRequestRouting>
      <protocol timeout="00:00:05" />
      <healthCheck url="http://{{(index .Controllers 0).Addr}}{{.Path}}" interval="00:00:05" timeout="00:00:02" statusCodeMatch="404" />
    </applicationRequestRouting>
  </webFarm>
</webFarms>
`)},
			{`%windir%\System32\inetsrv\config\applicationHost.config, inside <system.webServer>`, r.fill(`
<rewrite>
  <globalRules>
` + iisRule + `      <action type="Rewrite" url="http://{{.Dash}}{{.Path}}{R:1}" />
    </rule>
  </globalRules>
</rewrite>
`)},
		},
		Notes: []string{
			"Needs URL Rewrite 2.1 and Application Request Routing 3, with its proxy enabled (Server Proxy Settings, Enable proxy). Elements that are there already are to be merged, not written twice.",
			iisRewrite,
		},
	}
}

func iisRedirect(r rule) Snippet {
	return Snippet{
		Parts: []Part{{"web.config of the site that has " + r.Shown() + " on port 80, inside <configuration><system.webServer>", r.fill(`
<rewrite>
  <rules>
` + iisRule + `      <action type="Redirect" url="{{.To}}{{.Path}}{R:1}" redirectType="Found" appendQueryString="false" />
    </rule>
  </rules>
</rewrite>
`)}},
		Notes: []string{"Needs URL Rewrite 2.1.", iisRewrite},
	}
}

// A token has no extension, which IIS serves only with a type for ".".
func iisDistribute(r rule) Snippet {
	return Snippet{
		Parts: []Part{{r.Webroot + r.separated(Path) + "web.config", r.fill(`
<?xml version="1.0" encoding="UTF-8"?>
<configuration>
  <system.webServer>
    <validation validateIntegratedModeConfiguration="false" />
    <staticContent>
      <clear />
      <mimeMap fileExtension="." mimeType="application/octet-stream" />
    </staticContent>
    <handlers>
      <clear />
      <add name="StaticFile" path="*" verb="GET,HEAD" modules="StaticFileModule" resourceType="Either" requireAccess="Read" />
    </handlers>
  </system.webServer>
  <system.web>
    <authorization>
      <allow users="*" />
    </authorization>
  </system.web>
</configuration>
`)}},
		Notes: []string{
			"A token is a file without an extension, which IIS serves only with this web.config beside it.",
			"The webroot must be the site's folder, or have `.well-known` as a virtual directory of the site.",
			"Where handlers or staticContent are locked above: appcmd unlock config -section:system.webServer/handlers",
			"URL Rewrite rules of the site run before it: a redirect to https must leave out ^\\.well-known/acme-challenge/.",
		},
	}
}
