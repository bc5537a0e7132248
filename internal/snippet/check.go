package snippet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// Path is what a CA's question begins with; the token follows (RFC 8555 §8.3).
const Path = "/.well-known/acme-challenge/"

// The alphabets. What is within them means nothing to any server's syntax.
var (
	hostNames   = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	thumbprints = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`) // SHA-256 (RFC 7638), base64url
	posixPaths  = regexp.MustCompile(`^(/[A-Za-z0-9_@+][A-Za-z0-9._@+-]*)+$`)
	windows     = regexp.MustCompile(`^[A-Za-z]:(\\[A-Za-z0-9_][A-Za-z0-9._-]*)+$`)
	notInID     = regexp.MustCompile(`[^a-z0-9]+`)
)

// A rule is an Ask whose values have been checked, in the forms that servers
// want them in.
type rule struct {
	Via, ID     string // ID: "certfarm_" and the site's name
	Names       []string
	Hosts       string // Names as a regular expression that a Host header matches, without anchors
	Controllers []listener
	To          string // without a slash at the end
	ToScheme    string
	ToHost      string
	Thumbprint  string
	Webroot     string // without a slash at the end
	toIP        bool
}

// A listener is where a controller answers challenges.
type listener struct {
	Label string // controller1, controller2 …
	Host  string // name or address, without brackets
	Port  string
	Addr  string // host:port, with brackets where they are needed
	IsIP  bool
}

// Path is for the texts.
func (r rule) Path() string { return Path }

// Token is what a token may be, in the one regular expression that all servers
// understand in the same way.
func (r rule) Token() string { return `[A-Za-z0-9_-]{1,128}` }

// PathRE is Path as a regular expression.
func (r rule) PathRE() string { return strings.ReplaceAll(Path, ".", `\.`) }

// Dash is ID for programs that like names with a dash.
func (r rule) Dash() string { return strings.ReplaceAll(r.ID, "_", "-") }

// Shown is Names for a sentence.
func (r rule) Shown() string {
	if len(r.Names) > 4 {
		return fmt.Sprintf("%s and %d more", strings.Join(r.Names[:3], ", "), len(r.Names)-3)
	}
	return strings.Join(r.Names, ", ")
}

// Lines are Names by threes: some servers take only so many words in a line.
func (r rule) Lines() (lines []string) {
	for i := 0; i < len(r.Names); i += 3 {
		lines = append(lines, strings.Join(r.Bracketed()[i:min(i+3, len(r.Names))], " "))
	}
	return lines
}

// Bracketed are Names as they stand in a URL.
func (r rule) Bracketed() (names []string) {
	for _, n := range r.Names {
		if strings.Contains(n, ":") {
			n = "[" + n + "]"
		}
		names = append(names, n)
	}
	return names
}

// separated brings a path to the separators of Webroot.
func (r rule) separated(path string) string {
	if strings.HasPrefix(r.Webroot, "/") {
		return path
	}
	return strings.ReplaceAll(path, "/", `\`)
}

// check brings an Ask to a rule, with only those values that its way needs.
func (a Ask) check() (rule, error) {
	r := rule{Via: a.Via, ID: identifier(a.Site)}
	if err := r.names(a.Names); err != nil {
		return rule{}, err
	}
	switch a.Via {
	case farm.Gateway:
		return r.gateway(a.Controllers)
	case farm.Redirect:
		return r.redirect(a.To)
	case farm.Stateless:
		if !thumbprints.MatchString(a.Thumbprint) {
			return rule{}, errors.New("the account has no key yet, or its thumbprint is not 43 characters of base64url; it is known once the controller has opened the account")
		}
		r.Thumbprint = a.Thumbprint
		return r, nil
	default:
		return r.distribute(a.Webroot)
	}
}

// identifier makes any site name one that no server takes amiss.
func identifier(site string) string {
	id := strings.Trim(notInID.ReplaceAllString(strings.ToLower(site), "_"), "_")
	return strings.TrimRight("certfarm_"+id[:min(len(id), 40)], "_")
}

func (r *rule) names(names []string) error {
	var patterns []string
	for _, n := range names {
		n = strings.ToLower(n)
		if strings.HasPrefix(n, "*.") {
			continue
		}
		host, isIP, err := checkHost(n)
		if err != nil {
			return fmt.Errorf("name: %w", err)
		}
		r.Names = append(r.Names, host)
		if isIP && strings.Contains(host, ":") {
			host = `\[` + host + `\]`
		}
		patterns = append(patterns, strings.ReplaceAll(host, ".", `\.`))
	}
	if len(r.Names) == 0 {
		return errors.New("there is no name but wildcards, and these are proven by DNS only (RFC 8555 §8.3); use --dns")
	}
	r.Hosts = "(" + strings.Join(patterns, "|") + ")(:[0-9]+)?"
	return nil
}

func (r rule) gateway(controllers []string) (rule, error) {
	for i, c := range controllers {
		host, port, err := net.SplitHostPort(c)
		if err != nil {
			return rule{}, fmt.Errorf("controller %q is not host:port", c)
		}
		host, isIP, err := checkHost(strings.ToLower(host))
		if err != nil {
			return rule{}, fmt.Errorf("controller: %w", err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return rule{}, fmt.Errorf("controller %q has no port between 1 and 65535", c)
		}
		if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
			return rule{}, fmt.Errorf("controller %q listens everywhere, but cannot be asked there; give the address that the servers reach it at", c)
		}
		port = strconv.FormatUint(n, 10)
		r.Controllers = append(r.Controllers, listener{
			Label: "controller" + strconv.Itoa(i+1), Host: host, Port: port, Addr: net.JoinHostPort(host, port), IsIP: isIP,
		})
	}
	if len(r.Controllers) == 0 {
		return rule{}, errors.New("no controller is known; give the address that the servers reach its challenge listener at, host:port")
	}
	return r, nil
}

const redirectHint = "; it is a scheme and a host that only the controllers serve, such as http://acme.example.com"

func (r rule) redirect(to string) (rule, error) {
	u, err := baseURL(to)
	if err != nil {
		return rule{}, fmt.Errorf("redirect to %q: %w", to, err)
	}
	host, isIP, err := checkHost(strings.ToLower(u.Hostname()))
	if err != nil {
		return rule{}, fmt.Errorf("redirect to %q: %w", to, err)
	}
	if slices.Contains(r.Names, host) {
		return rule{}, fmt.Errorf("redirect to %q: that is a name of the site itself, which would redirect for ever%s", to, redirectHint)
	}
	r.toIP = isIP
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	r.ToScheme, r.ToHost, r.To = u.Scheme, host, u.Scheme+"://"+host
	return r, nil
}

// baseURL takes a scheme and a host, with the scheme's own port at most.
func baseURL(to string) (*url.URL, error) {
	u, err := url.Parse(to)
	if to == "" || err != nil {
		return nil, errors.New("no URL" + redirectHint)
	}
	own := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	if own == "" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("more or less than a scheme and a host" + redirectHint)
	}
	if p := u.Port(); p != "" && p != own {
		return nil, errors.New("CAs follow redirects to ports 80 (http) and 443 (https) only")
	}
	return u, nil
}

func (r rule) distribute(webroot string) (rule, error) {
	root := strings.TrimRight(webroot, `/\`)
	if !posixPaths.MatchString(root) && !windows.MatchString(root) {
		return rule{}, fmt.Errorf(`webroot %q: no absolute path of letters, digits and . _ - @ +, such as /var/www/acme or C:\inetpub\acme`, webroot)
	}
	r.Webroot = root
	return r, nil
}

// checkHost takes a host name (A-labels) or an address, in lower case.
func checkHost(s string) (host string, isIP bool, err error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), true, nil
	}
	if len(s) > 253 || !hostNames.MatchString(s) {
		return "", false, fmt.Errorf("%q is neither a host name in A-labels nor an address", s)
	}
	return s, false, nil
}
