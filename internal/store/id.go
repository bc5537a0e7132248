package store

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"time"
)

// crockford is an alphabet in the order of its bytes, without letters that look
// like digits.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// NewID makes an id that nobody can guess and that sorts by the time it was made,
// to the microsecond: "ro_00S1P8…". The prefix says what it is the id of.
func NewID(prefix string) string { return idAt(prefix, time.Now().UnixMicro()) }

// idAt is 7 bytes of time and 9 of chance, 26 letters.
func idAt(prefix string, micros int64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(micros)<<8)
	rand.Read(b[7:]) // never fails (crypto/rand)
	return prefix + "_" + base32.NewEncoding(crockford).WithPadding(base32.NoPadding).EncodeToString(b[:])
}
