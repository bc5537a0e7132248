package snippet

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// A PolicyAsk says what a node's own policy must allow.
type PolicyAsk struct {
	Node, Farm string
	Names      []string // of certificates
	Kinds      []string
	Folders    []string
	Commands   []NamedCommand
	Sockets    []string
	KeyTypes   []string
}

// A NamedCommand is a command and what people call it.
type NamedCommand struct {
	Name string
	Argv []string
}

// policyHead is what stands before the lists.
const policyHead = `# What controllers may do on this node. Root owns this file; a change counts at once.
# What it does not say is refused here, and the refusal names the line that is missing.
`

// policyTail is what does not come from farm.yaml.
const policyTail = `
# How many activations (a switch, a test and a reload) an hour; ways back: twice as many.
activations: 60

# Whether a leaf may be installed that is older than the one that is kept: a controller
# that was stolen could bring an old key back. The way back within a rollout is free.
older: false
`

// Policy writes the node's own policy for what its targets in farm.yaml need, and no
// more.
func Policy(a PolicyAsk) (Snippet, error) {
	if len(a.Kinds) == 0 {
		return Snippet{}, fmt.Errorf("policy of %s: it has no target", a.Node)
	}
	w := &policyText{}
	w.WriteString(policyHead)
	w.line("node", a.Node)
	w.line("farm", a.Farm)
	w.list("Names of certificates: NAME, *.NAME (the wildcard, and one label more), **.NAME (any more).", "names", a.Names)
	w.list("Kinds of targets.", "kinds", a.Kinds)
	w.list("Folders below which files are written. None may be writable by other users.", "folders", a.Folders)
	w.commands(a.Commands)
	w.list("Unix sockets that are connected to.", "sockets", a.Sockets)
	w.list("Types of keys.", "key_types", a.KeyTypes)
	w.WriteString(policyTail)
	if w.err != nil {
		return Snippet{}, fmt.Errorf("policy of %s: %w", a.Node, w.err)
	}
	return Snippet{
		Parts: []Part{{"/etc/certfarm/policy.yaml, owned by root, mode 0644", w.String()}},
		Notes: []string{
			"Read it before you put it there: it is what a stolen controller could do on this node. A pattern such as *.example.org saves work when names are added, and allows more.",
			"Programs, and the configuration that they are given, must be writable by root alone. One that is named without its folder is looked for in the PATH of the process on the node.",
		},
	}, nil
}

// policyText is YAML whose every value is quoted.
type policyText struct {
	strings.Builder
	err error
}

// quoted is a value as YAML and JSON both read it.
func (w *policyText) quoted(s string) string {
	if strings.ContainsFunc(s, unicode.IsControl) {
		w.err = errors.New("a value holds control characters")
	}
	text, err := json.Marshal(s)
	w.err = errors.Join(w.err, err)
	return string(text)
}

func (w *policyText) line(field, value string) {
	fmt.Fprintf(w, "%s: %s\n", field, w.quoted(value))
}

func (w *policyText) list(doc, field string, values []string) {
	if len(values) == 0 {
		return
	}
	fmt.Fprintf(w, "\n# %s\n%s:\n", doc, field)
	for _, v := range values {
		fmt.Fprintf(w, "  - %s\n", w.quoted(v))
	}
}

func (w *policyText) commands(all []NamedCommand) {
	if len(all) == 0 {
		return
	}
	w.WriteString("\n# Commands that may be run: these words and no others. The names are for people.\ncommands:\n")
	for _, c := range all {
		var words []string
		for _, word := range c.Argv {
			words = append(words, w.quoted(word))
		}
		fmt.Fprintf(w, "  %s: [%s]\n", c.Name, strings.Join(words, ", "))
	}
}

// Named gives commands names, the same command once: the program's and what it is for.
func Named(uses map[string][][]string) (all []NamedCommand) {
	taken := map[string]bool{}
	var purposes []string
	for p := range uses {
		purposes = append(purposes, p)
	}
	slices.Sort(purposes)
	for _, p := range purposes {
		for _, argv := range uses[p] {
			if slices.ContainsFunc(all, func(c NamedCommand) bool { return slices.Equal(c.Argv, argv) }) {
				continue
			}
			base := identifier(argv[0][strings.LastIndexAny(argv[0], `/\`)+1:])
			base = strings.TrimPrefix(base, "certfarm_") + "_" + p
			name := base
			for n := 2; taken[name]; n++ {
				name = fmt.Sprintf("%s_%d", base, n)
			}
			taken[name] = true
			all = append(all, NamedCommand{name, argv})
		}
	}
	return all
}

// A ReceiverAsk says which login takes calls on a node.
type ReceiverAsk struct {
	Node, User string
	Key        string // the public half of the controllers' login key, authorized_keys format
	Signed     bool   // the login is by a user certificate
}

// receiverProgram is where the certfarm of a node is taken to be.
const receiverProgram = "/usr/local/bin/certfarm"

// publicKeys is a key of authorized_keys, without options and comment.
var publicKeys = regexp.MustCompile(`^[a-z0-9@.-]+ [A-Za-z0-9+/=]+$`)

// Receiver writes the line of authorized_keys that ties the controllers' key to the
// receiver, so that it can do nothing else on the node.
func Receiver(a ReceiverAsk) (Snippet, error) {
	words := strings.Fields(a.Key)
	key := strings.Join(words[:min(len(words), 2)], " ")
	if !publicKeys.MatchString(key) {
		return Snippet{}, fmt.Errorf("receiver of %s: the login has no public key of the usual form", a.Node)
	}
	if !logins.MatchString(a.User) || aliases.MatchString(a.User) {
		return Snippet{}, fmt.Errorf("receiver of %s: user %q is no plain login name", a.Node, a.User)
	}
	command := receiverProgram + " receive"
	var s Snippet
	if a.User != "root" {
		file := "/etc/sudoers.d/" + strings.ReplaceAll(identifier(a.Node+"-receiver"), "_", "-")
		s.Parts = append(s.Parts, Part{file + ", owned by root, mode 0440", a.User + " ALL=(root) NOPASSWD: " + command + "\n"})
		command = "sudo -n " + command
	}
	if a.Signed {
		s.Parts = append(s.Parts, Part{"where user certificates are signed: the options of ssh-keygen -s", fmt.Sprintf("-O clear -O force-command=%q\n", command)})
	} else {
		file := "~" + a.User + "/.ssh/authorized_keys"
		s.Parts = append(s.Parts, Part{file + ", in place of any other line with this key", fmt.Sprintf("restrict,command=%q %s certfarm-controllers\n", command, key)})
	}
	s.Notes = []string{
		"Put the certfarm program at " + receiverProgram + " on the node, owned by root, of the controllers' version.",
		"The node's policy must be there first: `certfarm snippet policy " + a.Node + "`; without it everything is refused.",
		"Then: ssh: {receiver: true} at the node in farm.yaml, and `certfarm doctor` shows whether it answers.",
	}
	return s, nil
}
