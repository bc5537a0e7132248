# Takes certificates out of the machine's stores, each with its key, unless http.sys serves
# one by now.
$used = (Netsh) -join "`n"
foreach ($c in $data.certs) {
    $path = 'Cert:\LocalMachine\' + $c.store + '\' + $c.thumb
    if ($used.IndexOf($c.thumb, [StringComparison]::OrdinalIgnoreCase) -ge 0) { continue }
    if (Test-Path -LiteralPath $path) { Remove-Item -LiteralPath $path -DeleteKey }
}
Keep $data.notes
Answer @('OK')
