package target

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/host"
)

// maxDrivePath is the longest path on Windows that is taken: what is made beside a
// file or in the store has a longer one, and MAX_PATH is 260.
const maxDrivePath = 180

// onWindows says by a path which system the node has.
func onWindows(name string) bool { return host.OnDrive(name) }

// fold is a path as the file system compares it: Windows knows no case.
func fold(name string) string {
	if onWindows(name) {
		return strings.ToLower(name)
	}
	return name
}

// other is a path of another system than the store's; empty: none is.
func (a area) other(store string) string {
	for _, f := range a.files() {
		if onWindows(f.Live) != onWindows(store) {
			return f.Live
		}
	}
	return ""
}

// devices are names that are no files on Windows, with any ending (Naming Files,
// Paths, and Namespaces).
var devices = strings.Fields("con prn aux nul com0 com1 com2 com3 com4 com5 com6 com7 com8 com9 lpt0 lpt1 lpt2 lpt3 lpt4 lpt5 lpt6 lpt7 lpt8 lpt9 conin$ conout$")

// driveProblem says why a path on Windows cannot be taken; empty: it can.
func driveProblem(name string) string {
	switch {
	case path.Clean(name) != name:
		return "is not a clean path"
	case len(name) > maxDrivePath:
		return fmt.Sprintf("is longer than %d bytes, which Windows does not take with what is made beside it", maxDrivePath)
	case strings.ContainsAny(name[2:], `<>:"\|?*`):
		return `has a backslash, or a character that no file name on Windows has`
	}
	for part := range strings.SplitSeq(name[3:], "/") {
		base, _, _ := strings.Cut(strings.ToLower(part), ".")
		if strings.TrimRight(part, " .") != part || slices.Contains(devices, strings.TrimSpace(base)) {
			return fmt.Sprintf("has the part %q, which Windows reads as another", part)
		}
	}
	return ""
}

// linuxCommands are what the defaults of the kinds call.
var linuxCommands = []string{"apache2ctl", "systemctl"}

// checkSystem holds what options say to the system of their paths.
func (o upkeep) checkSystem(places []place) error {
	if name := newArea(o.Store, places).other(o.Store); name != "" {
		hint := "as in /var/lib/certfarm"
		if onWindows(name) {
			hint = "name a folder on the node that you made, with rights for administrators and the SSH user alone, as in C:/ProgramData/certfarm"
		}
		return &deploy.FieldError{Field: "store", Problem: fmt.Sprintf("%s lies on another system than %s", o.Store, name), Hint: hint}
	}
	if !onWindows(o.Store) {
		return nil
	}
	for field, value := range map[string]string{"owner": o.Owner, "group": o.Group} {
		if value != "" {
			return &deploy.FieldError{Field: field, Problem: "files on Windows have no owner over SFTP", Hint: "give the folder its rights: its files get them"}
		}
	}
	if o.Mode != keyMode {
		return &deploy.FieldError{Field: "mode", Problem: "files on Windows have no mode", Hint: "give the folder its rights: its files get them"}
	}
	if err := o.checkOwnCommands(); err != nil {
		return err
	}
	for _, p := range places {
		if len(p.Files) > 1 {
			return &deploy.FieldError{Field: "chain", Problem: "chain and key in two files cannot be switched at once on Windows", Hint: "give pem, one file with both, and let the server's configuration name it for the certificate and for the key"}
		}
		if p.Files[0].Part == sdsSecret {
			return &deploy.FieldError{Field: "path", Problem: "Envoy watches for a symlink that is moved, and there are none on Windows", Hint: "use files"}
		}
	}
	return nil
}

// checkOwnCommands refuses defaults, which no Windows has.
func (o upkeep) checkOwnCommands() error {
	for field, argv := range o.commands() {
		if len(argv) > 0 && slices.Contains(linuxCommands, argv[0]) {
			return &deploy.FieldError{Field: field, Problem: fmt.Sprintf("%s, the default, is a command of Linux", argv[0]), Hint: "name the server's own on Windows, as in [C:/Apache24/bin/httpd.exe, -k, restart, -n, Apache2.4], or [] for none"}
		}
	}
	return nil
}
