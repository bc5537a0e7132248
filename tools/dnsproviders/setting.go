package main

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	// aName is an environment variable; lego's files have prose among them, too.
	aName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
	// secret are the words of a name that say that the value is one, and open the
	// last words of a name that is only about one.
	secret = regexp.MustCompile(`TOKEN|KEY|SECRET|PASS|PWD|HMAC|CREDENTIALS|SIGNATURE`)
	open   = regexp.MustCompile(`_(ID|NAME|URL|TTL|INTERVAL|TIMEOUT|ACCOUNT_SWITCH_KEY)$`)
	// file are settings that name a file with a credential: its content is given.
	file = regexp.MustCompile(`_(PRIVATE_KEY_PATH|CERTIFICATE_PATH|PASSPORT_LOCATION)$`)
	// foreign are settings that name another file, or a profile in one. Whoever may
	// edit farm.yaml could have the controller read or write it: they are left out.
	foreign = regexp.MustCompile(`_(FILE|STORAGE_PATH|PROFILE|SDK_LOAD_CONFIG)$`)
	// ours are settings for what Certfarm does itself.
	ours = regexp.MustCompile(`_(PROPAGATION_TIMEOUT|SEQUENCE_INTERVAL)$`)
	// standard is how a description ends that tells the default.
	standard = regexp.MustCompile(`(?i)\s*\((?:by )?default:\s*([^()]*)\)\s*$`)
)

// secrets are those whose names do not tell.
var secrets = []string{"GCE_SERVICE_ACCOUNT"}

// instead are our defaults where lego's are of no use: Certfarm looks itself
// whether a record can be seen.
var instead = map[string]string{"AWS_WAIT_FOR_RECORD_SETS_CHANGED": "false"}

func settings(about map[string]string, credential bool) (all []Setting) {
	for _, name := range slices.Sorted(maps.Keys(about)) {
		if !aName.MatchString(name) || ours.MatchString(name) || foreign.MatchString(name) {
			continue
		}
		s := Setting{Name: name, About: strings.Join(strings.Fields(about[name]), " "), Credential: credential}
		if m := standard.FindStringSubmatch(s.About); m != nil {
			s.Default = m[1]
			s.About = strings.TrimSuffix(s.About, m[0])
		}
		if ours, differs := instead[name]; differs {
			s.Default, s.Ours = ours, true
		}
		s.About = strings.ReplaceAll(s.About, "`", "'")
		s.File = file.MatchString(name)
		s.Secret = s.File || isSecret(name)
		s.Credential = s.Credential || s.Secret
		if s.File {
			s.About += " (what is in the file, not where it is)"
		}
		all = append(all, s)
	}
	return all
}

func isSecret(name string) bool {
	_, words, _ := strings.Cut(name, "_") // the first word is the vendor's name
	return slices.Contains(secrets, name) || secret.MatchString(words) && !open.MatchString(name)
}
