package adopt

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Processes are commands, the first that works is enough, which print user and command
// line of what runs on a node with a shell, as Running reads them.
func Processes(shell string) [][]string {
	if shell == "cmd" || shell == "powershell" {
		// Only an administrator can make a service, so that they count as root's.
		const script = `Get-CimInstance Win32_Service | Where-Object { $_.State -eq 'Running' -and $_.PathName -match '(httpd|nginx|lighttpd|haproxy)\.exe' } | ForEach-Object { 'root ' + $_.PathName }`
		return [][]string{{"powershell", "-NoProfile", "-NonInteractive", "-Command", script}}
	}
	return [][]string{
		{"ps", "-ww", "-C", "nginx,apache2,httpd,haproxy,lighttpd,java", "-o", "user=,args="}, // procps: not more than is needed
		{"ps", "-ww", "-e", "-o", "user=,args="},
		{"ps", "-o", "user,args"}, // busybox
	}
}

// program is what runs the server, by the name in the path where it is not known.
func (s Server) program() string {
	if s.Program != "" {
		return s.Program
	}
	return map[string]string{"nginx": "nginx", "apache": "apache2ctl", "haproxy": "haproxy", "lighttpd": "lighttpd"}[s.Kind]
}

// flags are those that say which configuration is meant.
func (s Server) flags() (all []string) {
	config, root := "-f", "-d"
	if s.Kind == "nginx" {
		config, root = "-c", "-p"
	}
	if s.Config != "" {
		all = append(all, config, s.Config)
	}
	if s.Root != "" {
		all = append(all, root, s.Root)
	}
	for _, d := range s.Defines {
		all = append(all, "-D", d)
	}
	return all
}

// control is Apache's program as it is called to ask: Debian's needs the environment
// that apache2ctl sets.
func (s Server) control() string {
	if path.Base(s.program()) == "apache2" {
		return "apache2ctl"
	}
	return s.program()
}

// Questions are the commands whose outputs Tree wants, by name. None changes anything.
func (s Server) Questions() map[string][]string {
	ask := func(program string, words ...string) []string {
		return append(append([]string{program}, s.flags()...), words...)
	}
	switch s.Kind {
	case "nginx":
		return map[string][]string{"dump": ask(s.program(), "-T"), "version": {s.program(), "-V"}}
	case "apache":
		return map[string][]string{"version": {s.control(), "-V"}, "run": ask(s.control(), "-t", "-D", "DUMP_RUN_CFG"), "modules": ask(s.control(), "-M")}
	case "lighttpd":
		if s.Config == "" {
			s.Config = lighttpdDefault
		}
		return map[string][]string{"printed": {s.program(), "-p", "-f", s.Config}}
	}
	return nil
}

// What servers take where nothing is said.
const (
	lighttpdDefault = "/etc/lighttpd/lighttpd.conf"
	haproxyDefault  = "/etc/haproxy/haproxy.cfg"
)

var (
	confPath    = regexp.MustCompile(`--conf-path=(\S+)`)
	prefixPath  = regexp.MustCompile(`--prefix=(\S+)`)
	httpdRoot   = regexp.MustCompile(`HTTPD_ROOT="([^"]*)"`)
	httpdConfig = regexp.MustCompile(`SERVER_CONFIG_FILE="([^"]*)"`)
	defined     = regexp.MustCompile(`(?m)^Define: ([^=\r\n]+)(?:=([^\r\n]*))?`)
	module      = regexp.MustCompile(`(?m)^\s+(\w+_module) \(`)
)

func first(re *regexp.Regexp, text string) string {
	if m := re.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// Tree is where the server's configuration begins, by the answers to Questions; those
// that failed are not there. The problem says why it is not known.
func (s *Server) Tree(said map[string]string) (t Tree, problem string) {
	switch s.Kind {
	case "nginx":
		t = s.nginxTree(said)
	case "apache":
		t = s.apacheTree(said)
	case "haproxy":
		if s.Config == "" {
			s.Config = haproxyDefault
		}
		t.Main = s.Config
	case "lighttpd":
		if s.Config == "" {
			s.Config = lighttpdDefault
		}
		t.Main = s.Config
		printed := said["printed"]
		if i := strings.Index(printed, "config {"); i >= 0 {
			t.Texts = map[string]string{t.Main: printed[i:]}
		} else {
			return t, "lighttpd -p -f " + s.Config + " printed nothing that can be read, or too much"
		}
	case "tomcat":
		t.Main, t.Root = s.Config, s.Root
	}
	return t, s.lost(t.Main)
}

// lost says why a server's configuration is not known; empty: it is.
func (s *Server) lost(main string) string {
	remedy := ": name it with --server " + s.Kind + " --config FILE"
	switch {
	case main == "":
		return "where " + s.Kind + " has its configuration could not be told" + remedy
	case !path.IsAbs(main) && !drive(main):
		return s.Kind + " was started with a configuration that is named relative to its folder, " + main + remedy
	}
	return ""
}

func (s *Server) nginxTree(said map[string]string) (t Tree) {
	if texts, main := Dump(said["dump"]); main != "" {
		return Tree{Main: main, Texts: texts, Whole: true}
	}
	t.Main = s.Config
	if t.Main == "" {
		t.Main = first(confPath, said["version"])
	}
	if prefix := cmp.Or(s.Root, first(prefixPath, said["version"])); t.Main != "" && !path.IsAbs(t.Main) && !drive(t.Main) && prefix != "" {
		t.Main = path.Join(prefix, t.Main)
	}
	return t
}

func (s *Server) apacheTree(said map[string]string) (t Tree) {
	t.Root = s.Root
	if t.Root == "" {
		t.Root = first(httpdRoot, said["version"])
	}
	t.Main = s.Config
	if t.Main == "" {
		t.Main = first(httpdConfig, said["version"])
	}
	if t.Main != "" {
		t.Main = absolute(t.Root, t.Main)
	}
	t.Defines = map[string]string{}
	for _, d := range s.Defines {
		t.Defines[d] = ""
	}
	for _, m := range defined.FindAllStringSubmatch(said["run"], -1) {
		if !strings.HasPrefix(m[1], "DUMP_") {
			t.Defines[strings.TrimSpace(m[1])] = strings.Trim(m[2], `"`)
		}
	}
	for _, m := range module.FindAllStringSubmatch(said["modules"], -1) {
		t.Modules = append(t.Modules, m[1])
	}
	return t
}

// usual are the configurations that a server has where nobody says otherwise.
func (s Server) usual() []string {
	return map[string][]string{"nginx": {"/etc/nginx/nginx.conf"}, "haproxy": {haproxyDefault}, "lighttpd": {lighttpdDefault}}[s.Kind]
}

// Units are the systemd units that may have started the server: none where its
// command line names a configuration that is not the usual one.
func (s Server) Units() []string {
	if s.Config != "" && !slices.Contains(s.usual(), s.Config) || s.Root != "" && s.Root != "/etc/apache2" && s.Root != "/etc/httpd" || drive(s.Program) {
		return nil
	}
	return map[string][]string{"nginx": {"nginx"}, "apache": {"apache2", "httpd"}, "haproxy": {"haproxy"}, "lighttpd": {"lighttpd"}}[s.Kind]
}

// Commands are test, reload and start of a server where they are not what the kind of
// target has by itself. Unit is the systemd unit that runs it; unsure says what a
// person has to write.
func Commands(s Server, unit string) (all map[string][]string, unsure string) {
	if unit != "" {
		if s.Kind == "haproxy" || s.Kind == "lighttpd" {
			return nil, "" // that is how the kind does it
		}
		return map[string][]string{"reload": {"systemctl", "reload", unit}, "start": {"systemctl", "start", unit}}, ""
	}
	own := func(words ...string) []string {
		return append(append([]string{s.program()}, s.flags()...), words...)
	}
	odd := (s.Config != "" || s.Root != "") && len(s.Units()) == 0 // its own configuration
	switch s.Kind {
	case "apache":
		return s.apacheCommands(odd, own)
	case "nginx":
		if odd {
			all = map[string][]string{"test": own("-t"), "reload": own("-s", "reload"), "start": own()}
		}
	case "haproxy", "lighttpd":
		if odd {
			all = map[string][]string{"test": own(map[string]string{"haproxy": "-c", "lighttpd": "-tt"}[s.Kind])}
			unsure = "how this " + s.Kind + " is reloaded and started could not be told: write reload and start"
		}
	}
	return all, unsure
}

// apacheCommands are those of an Apache that is not Debian's with its own
// configuration, which the kind knows.
func (s Server) apacheCommands(odd bool, own func(...string) []string) (all map[string][]string, unsure string) {
	if !odd && path.Base(s.control()) == "apache2ctl" {
		return nil, ""
	}
	all = map[string][]string{"test": own("-t"), "reload": own("-k", "graceful"), "start": own("-k", "start")}
	if drive(s.Program) {
		all["reload"], unsure = own("-k", "restart"), "on Windows the service may have a name: -n NAME"
	}
	return all, unsure
}
