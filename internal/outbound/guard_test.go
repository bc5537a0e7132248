package outbound

import (
	"net/netip"
	"testing"
)

func TestGuard(t *testing.T) {
	g, err := NewGuard([]string{"10.1.2.0/24", "fd00:1::/64"})
	if err != nil {
		t.Fatal(err)
	}
	for text, open := range map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1::1": true, "10.1.2.3": true, "fd00:1::5": true, "64:ff9b::5db8:d822": true, "::ffff:10.1.2.3": true, "64:ff9b::10.1.2.3": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "::ffff:127.0.0.1": false, "::127.0.0.1": false, "0.0.0.0": false, "::": false, "0.1.2.3": false,
		"10.1.3.1": false, "172.16.0.1": false, "192.168.1.1": false, "100.64.0.1": false, "fd00:2::1": false, "fec0::1": false,
		"169.254.169.254": false, "fe80::1": false, "fe80::1%eth0": false, "fd00:ec2::254": false, "168.63.129.16": false,
		"224.0.0.1": false, "ff02::1": false, "255.255.255.255": false, "240.0.0.1": false, "198.18.0.1": false, "192.0.2.1": false, "2001:db8::1": false, "2001::1": false,
		"64:ff9b::7f00:1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b:1::1": false, "2002:7f00:1::1": false, "2002:c0a8:101::1": false, "2002:5db8:d822::1": true,
	} {
		if err := g.Check(netip.MustParseAddr(text)); (err == nil) != open {
			t.Errorf("%s: open %v, got %v", text, open, err)
		}
	}
}
