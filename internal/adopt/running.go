package adopt

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// A Server is a server that runs, as the table of processes has it.
type Server struct {
	Kind    string   `json:"kind" doc:"nginx, apache, haproxy, lighttpd or tomcat"`
	Program string   `json:"program"`
	Config  string   `json:"config,omitempty" doc:"its configuration, as its command line says; empty: the program's default"`
	Root    string   `json:"root,omitempty" doc:"where relative paths begin, as its command line says"`
	Defines []string `json:"defines,omitempty" doc:"Apache: what -D defines"`
}

// Running finds the servers in a table of processes: user and command line on each
// line, as `ps -eo user=,args=` writes them. Workers, which have the same words, are
// one with their master; what a line does not say is empty.
//
// Anybody on the node may run a process that is called nginx. To ask a server is to
// run its program with its configuration, which may load modules and run commands. So
// that is only done for processes of root, and of me, the login; of others the usual
// program and configuration count, or a note says what was left out.
func Running(ps, me string) (all []Server, notes []string) {
	var left []Server
	var users []string // whose they are
	for line := range strings.Lines(ps) {
		words := strings.Fields(strings.ReplaceAll(line, `"`, ""))
		if len(words) < 2 {
			continue
		}
		s, ok := serverOf(words[1:])
		if !ok {
			continue
		}
		if user := words[0]; user != "root" && user != me && s.runs() {
			if s.own() {
				left = append(left, s)
				users = append(users, user)
				continue
			}
			s.Program = path.Base(s.Program)
		}
		if !slices.ContainsFunc(all, func(o Server) bool { return same(o, s) }) {
			all = append(all, s)
		}
	}
	for i, s := range left {
		if slices.ContainsFunc(all, func(o Server) bool { return same(o, s) }) {
			continue // a worker of one that is asked
		}
		notes = append(notes, s.Kind+" of user "+users[i]+" was left out ("+cmp.Or(s.Config, s.Root)+"): a configuration that is neither the usual one nor that of a process of root is not asked for; name it with --server "+s.Kind+" --config FILE if it is yours")
	}
	slices.Sort(notes)
	return all, slices.Compact(notes)
}

// own reports a server whose command line says more than the usual configuration.
func (s Server) own() bool {
	return s.Config != "" && !slices.Contains(s.usual(), s.Config) || s.Root != "" || len(s.Defines) > 0
}

// runs reports a server that is asked by running its program.
func (s Server) runs() bool { return s.Kind == "nginx" || s.Kind == "apache" || s.Kind == "lighttpd" }

func same(a, b Server) bool {
	return a.Kind == b.Kind && path.Base(a.Program) == path.Base(b.Program) && a.Config == b.Config && a.Root == b.Root
}

func serverOf(words []string) (s Server, ok bool) {
	if words[0] == "nginx:" { // "nginx: master process /usr/sbin/nginx -c …"
		if words = words[1:]; len(words) < 3 || words[0] != "master" {
			return s, false
		}
		words = words[2:]
	}
	s.Program = strings.ReplaceAll(words[0], `\`, "/")
	flags := words[1:]
	switch strings.TrimSuffix(strings.ToLower(path.Base(s.Program)), ".exe") {
	case "nginx":
		s.Kind, s.Config, s.Root = "nginx", value(flags, "-c"), value(flags, "-p")
		return s, !slices.Contains(flags, "-s")
	case "apache2", "httpd", "apache":
		s.Kind, s.Config, s.Root = "apache", value(flags, "-f"), value(flags, "-d")
		s.Defines = definesOf(flags)
		return s, true
	case "haproxy":
		s.Kind, s.Config = "haproxy", value(flags, "-f")
		return s, s.Config != "" && !slices.Contains(flags, "-c")
	case "lighttpd":
		s.Kind, s.Config = "lighttpd", value(flags, "-f")
		return s, s.Config != "" && !slices.ContainsFunc(flags, func(f string) bool { return f == "-t" || f == "-tt" })
	case "java":
		return s.java(flags)
	}
	return s, false
}

// definesOf are the words that Apache's command line defines.
func definesOf(flags []string) (all []string) {
	for i, f := range flags {
		if f == "-D" && i+1 < len(flags) && flags[i+1] != "FOREGROUND" {
			all = append(all, flags[i+1])
		}
	}
	return all
}

// java is a Tomcat, if it is one.
func (s Server) java(flags []string) (Server, bool) {
	for _, f := range flags {
		if home, is := strings.CutPrefix(f, "-Dcatalina.base="); is {
			s.Kind, s.Root = "tomcat", strings.ReplaceAll(home, `\`, "/")
			s.Config = path.Join(s.Root, "conf/server.xml")
		}
	}
	return s, s.Kind != ""
}

// value is the word behind a flag; slashes in place of Windows' backslashes.
func value(flags []string, flag string) string {
	i := slices.Index(flags, flag)
	if i < 0 || i+1 >= len(flags) {
		return ""
	}
	if drive(flags[i+1]) {
		return strings.ReplaceAll(flags[i+1], `\`, "/")
	}
	return flags[i+1]
}
