package target

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
)

// defaultStore is where versions lie on a node.
const defaultStore = "/var/lib/certfarm"

// keyMode is the mode of files with a private key, unless farm.yaml says otherwise.
const keyMode = "0600"

// maxPath is the longest path that is taken (Linux PATH_MAX), and maxPairs how
// many leaves one target may hold: there are not more key types.
const (
	maxPath  = 4096
	maxPairs = 5
)

// pair is where one leaf goes: one combined file, or chain and key.
type pair struct {
	PEM   string `json:"pem,omitempty" doc:"path of one file with leaf, chain and key"`
	Chain string `json:"chain,omitempty" doc:"path of the chain, leaf first"`
	Key   string `json:"key,omitempty" doc:"path of the private key"`
}

// typed is where a further leaf goes.
type typed struct {
	Keys farm.KeyType `json:"keys" doc:"key type of the leaf that goes here, such as rsa2048"`
	pair
}

// options are what all kinds offer whose server reads PEM files.
type options struct {
	pair
	More []typed `json:"more,omitempty" doc:"paths for further leaves of the site, one for each other key type"`
	upkeep
}

// upkeep are the options of all kinds that install files: where versions lie,
// whose the files are, and the commands of the server.
type upkeep struct {
	Store  string   `json:"store,omitempty" doc:"folder for versions, writable by the SSH user, outside whatever the server globs"`
	Owner  string   `json:"owner,omitempty" doc:"owner of the files; empty: the SSH user"`
	Group  string   `json:"group,omitempty" doc:"group of the files; empty: the SSH user's"`
	Mode   string   `json:"mode,omitempty" doc:"mode of files with a private key, octal; chains are 0644"`
	Test   []string `json:"test" doc:"command that checks the configuration; empty: none"`
	Reload []string `json:"reload" doc:"command that makes the server read its files; empty: none"`
	Start  []string `json:"start" doc:"command that starts the server where it does not run, and is harmless where it does; empty: none"`
}

// facts is deploy.Options.Facts for a kind.
func (o options) facts(kind string) (identity, group string, err error) {
	if err := checkPairs(o.pairs()); err != nil {
		return "", "", err
	}
	return o.upkeep.facts(kind, o.places())
}

// commandless are the defaults of kinds without commands.
func commandless() upkeep { return upkeep{Store: defaultStore, Mode: keyMode} }

// commands are the commands by the options' names.
func (o upkeep) commands() map[string][]string {
	return map[string][]string{"test": o.Test, "reload": o.Reload, "start": o.Start}
}

// facts is deploy.Options.Facts for files at some places. Targets are of one
// group when the same commands, and so the same server, read the same store.
func (o upkeep) facts(kind string, places []place) (identity, group string, err error) {
	if err := o.check(places); err != nil {
		return "", "", err
	}
	return identityOf(places), fmt.Sprintf("%s test=%q reload=%q start=%q store=%q", kind, o.Test, o.Reload, o.Start, o.Store), nil
}

// pairs lists all places; the first has no key type of its own.
func (o options) pairs() []typed {
	return append([]typed{{pair: o.pair}}, o.More...)
}

// Places is deploy.Spread: two targets that share any of their files would write
// over each other.
func (o options) Places() []string {
	var all []string
	for _, p := range o.places() {
		for _, f := range p.Files {
			all = append(all, "file "+fold(f.Live))
		}
	}
	return all
}

// places gives every path its file.
func (o options) places() []place {
	var all []place
	for _, p := range o.pairs() {
		if p.PEM != "" {
			all = append(all, newPlace(p.Keys, []string{p.PEM}, combined))
		} else {
			all = append(all, newPlace(p.Keys, []string{p.Chain, p.Key}, chainOnly, keyOnly))
		}
	}
	return all
}

// one is the place of a kind that holds one leaf in one file.
func one(live string, p part) []place { return []place{newPlace("", []string{live}, p)} }

// identityOf is the physical place by which a target is known on its node: the
// path that shows the leaf.
func identityOf(places []place) string { return "file " + fold(places[0].Files[0].Live) }

// folderOf is a target's folder in the store.
func folderOf(store string, places []place) string {
	sum := sha256.Sum256([]byte(identityOf(places)))
	return path.Join(store, hex.EncodeToString(sum[:8]))
}

func (o upkeep) check(places []place) error {
	if err := checkPath("store", o.Store); err != nil {
		return err
	}
	if inside := newArea(o.Store, places).inside(o.Store); inside != "" {
		return &deploy.FieldError{Field: "store", Problem: "the server's own paths lie in it: " + inside, Hint: "name a folder of its own"}
	}
	if _, err := o.mode(); err != nil {
		return err
	}
	for field, name := range map[string]string{"owner": o.Owner, "group": o.Group} {
		if strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == ':' || r == ' ' }) {
			return &deploy.FieldError{Field: field, Problem: fmt.Sprintf("%q is no name", name)}
		}
	}
	for field, argv := range o.commands() {
		if err := checkArgv(field, argv); err != nil {
			return err
		}
	}
	return o.checkSystem(places)
}

func (o upkeep) mode() (fs.FileMode, error) {
	n, err := strconv.ParseUint(o.Mode, 8, 32)
	if err != nil || n > 0o777 || n&0o400 == 0 || n&0o007 != 0 {
		return 0, &deploy.FieldError{Field: "mode", Problem: fmt.Sprintf("%q is no mode for a private key", o.Mode), Hint: "an octal number that lets the owner read and nobody else but the group, such as 0600 or 0640"}
	}
	return fs.FileMode(n), nil
}

func checkArgv(field string, argv []string) error {
	for i, word := range argv {
		if (i == 0 && strings.TrimSpace(word) == "") || strings.ContainsFunc(word, unicode.IsControl) {
			return &deploy.FieldError{Field: field, Problem: fmt.Sprintf("word %d is empty or has control characters", i+1), Hint: "a list of words, as in [nginx, -t]"}
		}
	}
	if len(argv) == 1 && strings.ContainsAny(argv[0], " \t") {
		return &deploy.FieldError{Field: field, Problem: "it is one word with spaces, and no shell takes it apart", Hint: "a list of words, as in [nginx, -t]"}
	}
	return nil
}

func checkPairs(pairs []typed) error {
	if len(pairs) == 0 || len(pairs) > maxPairs {
		return &deploy.FieldError{Field: "more", Problem: fmt.Sprintf("%d leaves; at most %d", len(pairs), maxPairs)}
	}
	var seen []string
	var keys []farm.KeyType
	for i, p := range pairs {
		field := func(name string) string {
			if i == 0 {
				return name
			}
			return fmt.Sprintf("more[%d].%s", i-1, name)
		}
		if i > 0 {
			if !slices.Contains(farm.KeyTypes, p.Keys) || slices.Contains(keys, p.Keys) {
				return &deploy.FieldError{Field: field("keys"), Problem: fmt.Sprintf("%q is no key type, or is named twice", p.Keys), Hint: fmt.Sprintf("one of %v", farm.KeyTypes)}
			}
			keys = append(keys, p.Keys)
		}
		paths, err := p.paths(field)
		if err != nil {
			return err
		}
		for _, name := range paths {
			if slices.Contains(seen, fold(name)) {
				return &deploy.FieldError{Field: field("chain"), Problem: "two files at " + name, Hint: "chain and key in one file is what pem is for"}
			}
			seen = append(seen, fold(name))
		}
	}
	return nil
}

// paths are the pair's paths, checked.
func (p pair) paths(field func(string) string) ([]string, error) {
	switch {
	case p.PEM != "" && p.Chain == "" && p.Key == "":
		return []string{p.PEM}, checkPath(field("pem"), p.PEM)
	case p.PEM == "" && p.Chain != "" && p.Key != "":
		if err := checkPath(field("chain"), p.Chain); err != nil {
			return nil, err
		}
		return []string{p.Chain, p.Key}, checkPath(field("key"), p.Key)
	}
	return nil, &deploy.FieldError{Field: field("chain"), Problem: "give either pem, or both chain and key", Hint: "the paths that the server's configuration names"}
}

func checkPath(field, name string) error {
	var problem string
	switch {
	case onWindows(name) && !strings.ContainsFunc(name, unicode.IsControl):
		if problem = driveProblem(name); problem == "" {
			return nil
		}
	case strings.Contains(name, `:\`) || onWindows(strings.TrimPrefix(name, "/")):
		return &deploy.FieldError{Field: field, Problem: fmt.Sprintf("%q is not how a path on Windows is written here", name), Hint: "with a drive and forward slashes, as in C:/Apache24/conf/tls/shop.pem"}
	case !path.IsAbs(name):
		problem = "is not absolute"
	case path.Clean(name) != name || name == "/":
		problem = "is not a clean path"
	case strings.ContainsFunc(name, unicode.IsControl):
		problem = "has control characters"
	case len(name) > maxPath:
		problem = "is too long"
	default:
		return nil
	}
	return &deploy.FieldError{Field: field, Problem: fmt.Sprintf("%q %s", name, problem), Hint: "as in /etc/nginx/tls/shop.pem, or C:/nginx/conf/tls/shop.pem"}
}
