package probe

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// proxyHeader is the header of the PROXY protocol (HAProxy's proxy-protocol.txt
// §2.1 and §2.2) for a connection from one address to the other. Where the
// addresses are not known, as inside an SSH channel, it says so: UNKNOWN in
// version 1, LOCAL in version 2, which every receiver must accept.
func proxyHeader(version int, from, to net.Addr) []byte {
	src, dst := addrPort(from), addrPort(to)
	known := src.IsValid() && dst.IsValid() && src.Addr().Is4() == dst.Addr().Is4() && !src.Addr().IsUnspecified()
	if version == 1 {
		return proxyV1(src, dst, known)
	}
	return proxyV2(src, dst, known)
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := tcp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

func proxyV1(src, dst netip.AddrPort, known bool) []byte {
	if !known {
		return []byte("PROXY UNKNOWN\r\n")
	}
	family := "TCP6"
	if src.Addr().Is4() {
		family = "TCP4"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, src.Addr(), dst.Addr(), src.Port(), dst.Port())
}

func proxyV2(src, dst netip.AddrPort, known bool) []byte {
	const (
		local, proxy = 0x20, 0x21 // version 2 and the command
		tcp4, tcp6   = 0x11, 0x21 // family and transport
	)
	head := []byte("\r\n\r\n\x00\r\nQUIT\n")
	if !known {
		return append(head, local, 0, 0, 0)
	}
	body := append(src.Addr().AsSlice(), dst.Addr().AsSlice()...)
	body = binary.BigEndian.AppendUint16(body, src.Port())
	body = binary.BigEndian.AppendUint16(body, dst.Port())
	family := byte(tcp6)
	if src.Addr().Is4() {
		family = tcp4
	}
	head = binary.BigEndian.AppendUint16(append(head, proxy, family), uint16(len(body)))
	return append(head, body...)
}
