package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A product is a server that a node of the mixed farm runs.
type product string

// The products, by the names that people know.
const (
	apache  product = "Apache"
	haproxy product = "HAProxy"
	samba   product = "Samba"
)

// software is a product as it is on this machine; without a program a stand-in
// takes its place, which answers the same commands.
type software struct {
	product product
	program string // path; empty: none of use
	version string
	modules string // folder of Apache's modules
}

func (s software) real() bool { return s.program != "" }

// String is "Apache 2.4.62".
func (s software) String() string { return string(s.product) + " " + s.version }

// commands gives the node the commands by which operators know the product.
func (s software) commands(sh *shell, does service, up func() bool) {
	switch s.product {
	case apache:
		sh.programs["apache2ctl"] = apache2ctl(does, up)
	case haproxy:
		sh.programs["haproxy"] = haproxyTest(does)
		sh.programs["systemctl"] = systemctl("haproxy", does, up)
		sh.programs["haproxy-admin"] = noAdmin // the stand-in has no runtime API: it is reloaded
	}
}

// A service is what commands do with a server.
type service interface {
	check(ctx context.Context) error
	start(ctx context.Context) error
	reload(ctx context.Context) error
}

// A Finder finds a program of this machine, as exec.LookPath does.
type Finder func(name string) (path string, err error)

// findProgram looks into PATH, and then where systems keep servers, which is not
// in the PATH of everybody.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// versionTime bounds asking a program for its version.
const versionTime = 10 * time.Second

// look finds a product on this machine. What is not there, or does not tell its
// version, is none of use.
func (find Finder) look(p product) software {
	how := map[product]struct {
		names []string
		flag  string
		says  *regexp.Regexp
	}{
		apache:  {[]string{"apache2", "httpd"}, "-v", regexp.MustCompile(`Apache/([0-9.]+)`)},
		haproxy: {[]string{"haproxy"}, "-v", regexp.MustCompile(`HAProxy version ([0-9.]+)`)},
		samba:   {[]string{"smbd"}, "-V", regexp.MustCompile(`Version ([0-9.]+)`)},
	}[p]
	for _, name := range how.names {
		program, err := find(name)
		if err != nil || !canRun(p, find) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), versionTime)
		text, err := exec.CommandContext(ctx, program, how.flag).Output()
		cancel()
		m := how.says.FindSubmatch(text)
		if err != nil || m == nil {
			continue
		}
		s := software{product: p, program: program, version: string(m[1])}
		if p == apache {
			if s.modules = apacheModules(); s.modules == "" {
				continue
			}
		}
		return s
	}
	return software{product: p}
}

// canRun reports that this user, on this system, can run a product in the lab's
// way: processes are ended by group, which only Unix has, and smbd lets people in
// as root only.
func canRun(p product, find Finder) bool {
	if !groups {
		return false
	}
	if p != samba {
		return true
	}
	_, err := find("smbpasswd")
	return err == nil && os.Getuid() == 0
}

// told is the line that says what of a mixed farm is real.
func told(parts []software) string {
	var real, not []string
	for _, s := range parts {
		if s.real() {
			real = append(real, s.String())
		} else {
			not = append(not, string(s.product))
		}
	}
	not = append(not, "the IIS readers", "Key Vault")
	line := listed(not) + " are stand-ins"
	if len(real) > 0 {
		line = fmt.Sprintf("%s of this machine; %s", listed(real), line)
	}
	return "mixed farm: " + line
}

// listed is "a, b and c".
func listed(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
