package adopt

import (
	"cmp"
	"encoding/xml"
	"path"
	"strconv"
	"strings"
)

type tomcatServer struct {
	Services []struct {
		Connectors []tomcatConnector `xml:"Connector"`
	} `xml:"Service"`
}

type tomcatConnector struct {
	Port    string `xml:"port,attr"`
	Address string `xml:"address,attr"`
	Secure  string `xml:"SSLEnabled,attr"`
	File    string `xml:"keystoreFile,attr"` // as before Tomcat 8.5
	Type    string `xml:"keystoreType,attr"`
	Hosts   []struct {
		Name         string              `xml:"hostName,attr"`
		Certificates []tomcatCertificate `xml:"Certificate"`
	} `xml:"SSLHostConfig"`
}

type tomcatCertificate struct {
	Keystore string `xml:"certificateKeystoreFile,attr"`
	Type     string `xml:"certificateKeystoreType,attr"`
	File     string `xml:"certificateFile,attr"`
	Key      string `xml:"certificateKeyFile,attr"`
	Chain    string `xml:"certificateChainFile,attr"`
}

// Tomcat reads Tomcat's server.xml: connectors with SSLEnabled. Root is
// catalina.base, which relative paths begin at; empty: the folder above Main's.
func Tomcat(t Tree) Found {
	r := newReader(t)
	if r.Root == "" {
		r.Root = path.Dir(path.Dir(t.Main))
	}
	if !r.enter(t.Main, 0) {
		return r.Found
	}
	var s tomcatServer
	if err := xml.Unmarshal([]byte(t.Texts[t.Main]), &s); err != nil {
		r.note("%s is not understood: %v", t.Main, err)
		return r.Found
	}
	for _, service := range s.Services {
		for _, c := range service.Connectors {
			if strings.EqualFold(c.Secure, "true") {
				tomcatConnect(r, c)
			}
		}
	}
	return r.Found
}

func tomcatConnect(r *reader, c tomcatConnector) {
	where := r.Main + ", connector " + c.Port
	var listens []Listen
	if n, err := strconv.ParseUint(c.Port, 10, 16); err == nil && n > 0 {
		listens = []Listen{{Host: strings.Trim(c.Address, "[]"), Port: int(n)}}
	}
	add := func(host string, pairs ...Files) {
		p := Place{Server: "tomcat", At: where, Listens: append([]Listen{}, listens...)}
		if host != "" && host != "_default_" {
			p.Names = []string{strings.ToLower(host)}
		}
		for _, pair := range pairs {
			chain, key := tomcatPath(r, pair.Chain), tomcatPath(r, pair.Key)
			if strings.Contains(chain+key, "${") {
				r.note("%s: %s has a property in it, whose value is the server's", where, pair.Chain)
				return
			}
			p.Pairs = append(p.Pairs, Files{chain, key, pair.Store})
		}
		r.add(p)
	}
	for _, h := range c.Hosts {
		add(h.Name, tomcatFiles(r, where, h.Certificates)...)
	}
	if c.File != "" {
		add("", Files{Chain: c.File, Key: c.File, Store: storeType(c.Type)})
	}
}

// tomcatFiles are the files of a host's certificates.
func tomcatFiles(r *reader, where string, all []tomcatCertificate) (files []Files) {
	for _, cert := range all {
		switch {
		case cert.Keystore != "":
			files = append(files, Files{Chain: cert.Keystore, Key: cert.Keystore, Store: storeType(cert.Type)})
		case cert.File != "":
			files = append(files, Files{Chain: cert.File, Key: cmp.Or(cert.Key, cert.File)})
		}
		if cert.Chain != "" {
			r.note("%s: certificateChainFile %s: take it out when Certfarm writes the files: the chain is in certificateFile", where, cert.Chain)
		}
	}
	return files
}

// storeType is the sort of a key store; Tomcat's default is JKS, which Java reads as
// PKCS#12, too.
func storeType(text string) string {
	if strings.EqualFold(text, "PKCS12") {
		return "pkcs12"
	}
	return "jks"
}

func tomcatPath(r *reader, name string) string {
	for _, base := range []string{"${catalina.base}", "${catalina.home}"} {
		name = strings.ReplaceAll(name, base, r.Root)
	}
	return absolute(r.Root, name)
}
