# Makes the moves in their order and stops at the first that fails: whoever asked looks
# then, and asks for the moves back.
Import-Module WebAdministration

# Find is the one HTTPS binding of a move, or nothing.
function Find($m) {
    foreach ($b in @(Get-WebBinding -Name $m.site -Protocol https)) {
        if ($b.bindingInformation -eq $m.info) { return $b }
    }
}

foreach ($m in $data.moves) {
    if ($m.create) {
        New-WebBinding -Name $m.site -Protocol https -IPAddress $m.ip -Port $m.port -HostHeader $m.host -SslFlags $m.flags
    }
    $b = Find $m
    if (-not $b) { throw ('the site has no HTTPS binding ' + $m.info + ' any more') }
    if ($m.unbind) { $b.RemoveSslCertificate() }
    if ($m.reflag) {
        Set-WebBinding -Name $m.site -BindingInformation $m.info -PropertyName sslFlags -Value $m.flags
        $b = Find $m
    }
    if ($m.thumb -ne '') { $b.AddSslCertificate($m.thumb, $m.store) }
    if ($m.listen) { $null = New-Item -Path ('IIS:\SslBindings\!' + $m.port + '!' + $m.host) -SslFlags $m.flags }
    if ($m.drop) { Remove-WebBinding -Name $m.site -Protocol https -BindingInformation $m.info }
}
foreach ($port in $data.deafen) {
    $null = & "$env:windir\System32\netsh.exe" http delete sslcert ('ccs=' + [int] $port)
    if ($LASTEXITCODE -ne 0) { throw ('http.sys keeps its central certificate store binding of port ' + $port) }
}
Keep $data.notes
Answer @('OK')
