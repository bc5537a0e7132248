package ccs

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

const extension = ".pfx"

// fileNames are the names of the files that IIS looks for when a client asks for
// a name: the name itself, or for a wildcard "_" in place of the "*". An
// internationalised name gets two files, since it is not documented whether IIS
// looks for the form with xn-- or the other.
func fileNames(name string) ([]string, error) {
	base, wild := strings.CutPrefix(strings.ToLower(strings.TrimSuffix(name, ".")), "*.")
	if _, err := netip.ParseAddr(base); err == nil {
		return nil, fmt.Errorf("%s is an address: IIS takes certificates from a store by name (SNI), and a client that asks for an address sends none", name)
	}
	if slices.Contains(strings.Split(base, "."), "") { // idna lets these pass
		return nil, fmt.Errorf("%q is no name: a part of it is empty", name)
	}
	ascii, err := idna.Lookup.ToASCII(base)
	if err != nil {
		return nil, fmt.Errorf("%q is no name that a file of the store can have: %w", name, err)
	}
	forms := []string{ascii}
	if shown, err := idna.Lookup.ToUnicode(ascii); err == nil && shown != ascii {
		forms = append(forms, shown)
	}
	for i, form := range forms {
		if wild {
			form = "_." + form
		}
		forms[i] = form + extension
	}
	return forms, nil
}

// filesOf are the files of all names, in their order.
func filesOf(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, errors.New("the certificate store: no names are known that files could be for")
	}
	var all []string
	for _, name := range names {
		files, err := fileNames(name)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	return all, nil
}

// isFileName says whether something is the name of a file in the root that we
// may touch: no folder in it, and no name that leads elsewhere.
func isFileName(name string) bool {
	base, ok := strings.CutSuffix(name, extension)
	return ok && base != "" && !strings.HasPrefix(base, ".") && !strings.ContainsAny(name, `/\:*?"<>|`) && !strings.ContainsFunc(name, unicode.IsControl)
}

// hostOf is the name that a file is for: "*.example.com" for _.example.com.pfx.
func hostOf(file string) string {
	base := strings.ToLower(file)[:len(file)-len(extension)]
	if rest, wild := strings.CutPrefix(base, "_."); wild {
		return "*." + rest
	}
	return base
}

// wildcardOf is the file that IIS would take if the exact one were not there;
// empty: none.
func wildcardOf(file string) string {
	first, rest, _ := strings.Cut(strings.ToLower(file), ".")
	if first == "_" || "."+rest == extension || rest == "" {
		return ""
	}
	return "_." + rest
}
