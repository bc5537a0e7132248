package smb

import (
	"fmt"
	"path"
	"strings"
	"unicode"
)

// A UNC is a folder of a share, \\server\share\folder.
type UNC struct {
	Server string // name or address of the file server
	Share  string
	Folder string // as host.Files wants it: "/" is the share itself
}

// forbidden are the characters that no name on a Windows share may have
// (MS-FSCC section 2.1.5).
const forbidden = `<>:"|?*\/`

// maxName is the longest name of a file or a share, in letters.
const maxName = 255

// ParseUNC takes a UNC path apart; slashes of both kinds do. The error says
// what is wrong and what would be right.
func ParseUNC(text string) (UNC, error) {
	slashed := strings.ReplaceAll(text, `\`, "/")
	rest, ok := strings.CutPrefix(slashed, "//")
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	if !ok || len(parts) < 2 {
		return UNC{}, fmt.Errorf(`%q is no path of a share: it is written \\server\share\folder`, text)
	}
	if err := checkServer(parts[0]); err != nil {
		return UNC{}, fmt.Errorf("%q: %w", text, err)
	}
	for _, part := range parts[1:] {
		if err := checkName(part); err != nil {
			return UNC{}, fmt.Errorf("%q: %w", text, err)
		}
	}
	return UNC{Server: parts[0], Share: parts[1], Folder: "/" + strings.Join(parts[2:], "/")}, nil
}

// String is the path with backslashes.
func (u UNC) String() string { return u.At(u.Folder) }

// At is the path of a file of the share, named as host.Files names it.
func (u UNC) At(name string) string {
	return strings.TrimSuffix(`\\`+u.Server+`\`+u.Share+strings.ReplaceAll(path.Join("/", name), "/", `\`), `\`)
}

// checkServer wants a host name or an address. Names with @ (WebDAV) and the
// device namespaces \\?\ and \\.\ are none.
func checkServer(name string) error {
	wrong := strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
	})
	if wrong || strings.Trim(name, ".") == "" || strings.HasPrefix(name, "-") || len(name) > maxName {
		return fmt.Errorf("%q is no name of a server", name)
	}
	return nil
}

// checkName wants the name of one file or folder, as Windows has them.
func checkName(name string) error {
	bad := func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(forbidden, r) }
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is no name of a file or folder", name)
	case strings.ContainsFunc(name, bad):
		return fmt.Errorf("the name %q has one of %s or a control character", name, forbidden)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return fmt.Errorf("the name %q ends with a dot or a space, which Windows takes away", name)
	case len(name) > maxName:
		return fmt.Errorf("the name %.20q… is longer than %d letters", name, maxName)
	}
	return nil
}

// inShare is a name of host.Files as the share knows it: without the first
// slash. The root is empty.
func inShare(name string) (string, error) {
	if !strings.HasPrefix(name, "/") {
		return "", fmt.Errorf("%q is not absolute", name)
	}
	name = strings.Trim(name, "/")
	if name == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if err := checkName(part); err != nil {
			return "", err
		}
	}
	return name, nil
}
