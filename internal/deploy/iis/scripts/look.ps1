# Reads all that decisions need, and changes nothing.
Import-Module WebAdministration
$lines = New-Object Collections.Generic.List[string]
foreach ($b in @(Get-WebBinding -Protocol https)) {
    if ($b.ItemXPath -match "@name='(.*?)' and @id=") {
        $flags = 0
        if ($b.sslFlags) { $flags = [int] $b.sslFlags }
        $lines.Add((@('B', (Packed $Matches[1]), $b.bindingInformation, $flags) -join $tab))
    }
}
foreach ($s in @(Get-WebConfigurationProperty -PSPath 'MACHINE/WEBROOT/APPHOST' -Filter 'system.applicationHost/sites/site' -Name name)) {
    $lines.Add((@('S', (Packed ([string] $s.Value))) -join $tab))
}
$sha = [Security.Cryptography.SHA256]::Create()
foreach ($store in 'My', 'WebHosting') {
    $path = 'Cert:\LocalMachine\' + $store
    if (Test-Path -LiteralPath $path) {
        foreach ($c in @(Get-ChildItem -LiteralPath $path)) {
            $key = '0'
            if ($c.HasPrivateKey) { $key = '1' }
            $lines.Add((@('C', $store, $c.Thumbprint.ToLowerInvariant(), (Hex $sha.ComputeHash($c.RawData)), $key) -join $tab))
        }
    }
}
if (Test-Path -LiteralPath $memory) {
    $item = Get-Item -LiteralPath $memory
    foreach ($id in $item.GetValueNames()) { $lines.Add((@('N', $id, [string] $item.GetValue($id)) -join $tab)) }
}
if (Test-Path -LiteralPath $central) {
    $p = Get-Item -LiteralPath $central
    $lines.Add((@('P', [string] $p.GetValue('Enabled'), (Packed ([string] $p.GetValue('CertStoreLocation'))), (Packed ([string] $p.GetValue('UserName'))), [string] $p.GetValue('PollingInterval')) -join $tab))
}
foreach ($line in Netsh) { $lines.Add('T' + $tab + $line) }
Answer $lines.ToArray()
