package smb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"

	"github.com/cloudsoda/go-smb2"
)

// ErrLocked says that somebody else held a file open until the call's time was
// over.
var ErrLocked = errors.New("another program holds the file open")

// status is an NTSTATUS (MS-ERREF section 2.3.1).
type status uint32

// The ones that are told apart.
const (
	sharingViolation  status = 0xC0000043
	quotaExceeded     status = 0xC0000044
	lockConflict      status = 0xC0000054
	deletePending     status = 0xC0000056
	noLogonServers    status = 0xC000005E
	logonFailure      status = 0xC000006D
	accountRestricted status = 0xC000006E
	passwordExpired   status = 0xC0000071
	accountDisabled   status = 0xC0000072
	diskFull          status = 0xC000007F
	writeProtected    status = 0xC00000A2
	fileIsFolder      status = 0xC00000BA
	notSupported      status = 0xC00000BB
	nameDeleted       status = 0xC00000C9
	badNetworkName    status = 0xC00000CC
	notEmpty          status = 0xC0000101
	notFolder         status = 0xC0000103
	logonNotGranted   status = 0xC000015B
	trustFailure      status = 0xC000018D
	sessionDeleted    status = 0xC0000203
	disconnected      status = 0xC000020C
	connectionReset   status = 0xC000020D
	mustChange        status = 0xC0000224
	lockedOut         status = 0xC0000234
	pathNotCovered    status = 0xC0000257
	dfsUnavailable    status = 0xC000026D
	sessionExpired    status = 0xC000035C
	ntlmBlocked       status = 0xC0000418
	diskQuota         status = 0xC0000802
)

// statusOf is the server's status in an error; 0: there is none.
func statusOf(err error) status {
	if r, ok := errors.AsType[*smb2.ResponseError](err); ok {
		return status(r.Code)
	}
	return 0
}

// isLost says that the session cannot be used any more. Whether what was asked
// for was done is not known.
func isLost(err error) bool {
	switch statusOf(err) {
	case nameDeleted, sessionDeleted, disconnected, connectionReset, sessionExpired:
		return true
	}
	_, transport := errors.AsType[*smb2.TransportError](err)
	_, invalid := errors.AsType[*smb2.InvalidResponseError](err)
	_, internal := errors.AsType[*smb2.InternalError](err)
	_, network := errors.AsType[net.Error](err)
	return transport || invalid || internal || network || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}

// remedies are what a person can do about a status.
var remedies = map[status]string{
	logonFailure:      "the user name or the password is wrong; an account of a domain needs `domain`",
	accountRestricted: "the account may not log in like this: an empty password, hours, or NTLM is forbidden to it (Protected Users). " + noKerberos,
	ntlmBlocked:       "the server refuses NTLM. " + noKerberos,
	logonNotGranted:   "the account lacks the right `Access this computer from the network` on the server",
	passwordExpired:   "the account's password has expired: set a new one that does not",
	mustChange:        "the account must change its password first",
	accountDisabled:   "the account is disabled",
	lockedOut:         "the account is locked out after wrong passwords",
	noLogonServers:    "the file server reaches no domain controller that could check the password",
	trustFailure:      "the file server and its domain do not trust each other: Test-ComputerSecureChannel -Repair on it",
	badNetworkName:    "the server has no such share. " + noDFS,
	pathNotCovered:    "this is a DFS link. " + noDFS,
	dfsUnavailable:    "this is a DFS namespace. " + noDFS,
	notSupported:      "the server speaks no SMB 3: Windows Server 2012 or newer does",
	writeProtected:    "the disk is write-protected",
	fileIsFolder:      "it is a folder",
	notFolder:         "it is no folder",
}

// otherMech is how the library says that the server chose another way to log in
// than NTLM, the only one that was offered.
const otherMech = "server selected an unsupported mechanism"

const (
	noKerberos = "Kerberos is not spoken from here: use an account that may log in by NTLM, or run the controller on Windows under a gMSA and name the share as `path`"
	noDFS      = `If \\domain\namespace is DFS, name the file server itself (Get-DfsnFolderTarget shows it)`
)

// explain adds what can be done. The library's error stays in the chain, and so
// do fs.ErrNotExist, fs.ErrPermission and syscall.ENOSPC.
func explain(err error) error {
	s := statusOf(err)
	if t, ok := errors.AsType[*smb2.TransportError](err); ok && errors.Is(t.Err, errClear) {
		return errClear
	}
	if r, ok := errors.AsType[*smb2.InvalidResponseError](err); ok && r.Message == otherMech {
		return fmt.Errorf("%w (the server takes no NTLM. %s)", err, noKerberos)
	}
	switch s {
	case diskFull, quotaExceeded, diskQuota:
		return fmt.Errorf("%w (%w; make room or raise the quota of the account)", syscall.ENOSPC, err)
	}
	if remedy := remedies[s]; remedy != "" {
		return fmt.Errorf("%w (%s)", err, remedy)
	}
	if errors.Is(err, fs.ErrPermission) && !errors.Is(err, ErrLocked) {
		return fmt.Errorf("%w (the account needs the right Modify, on the share and in the file system)", err)
	}
	return err
}
