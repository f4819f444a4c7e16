# SPDX-License-Identifier: MIT
# dns_faults.pl PORT SERVER_PORT MODES LOG: stands before a DNS server on 127.0.0.1 and spoils its
# answers. The file MODES, read at each question, has lines "NAME MODE"; NAME "*" is any other. LOG
# gets a line "NAME TYPE" a question. Ready when LOG is there.
#
#     ok         as the server says          silent     nothing
#     servfail   SERVFAIL                    truncated  cut, and TCP is closed at once
#     refused    REFUSED                     tcp        cut, and TCP has it whole
#     nxdomain   no such name                empty      no records
#     random     half of the time one of servfail, refused, truncated, empty
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;

my ($port, $server_port, $modes, $log_path) = @ARGV;
my $udp = IO::Socket::INET->new(Proto => "udp", LocalAddr => "127.0.0.1:$port") or die "udp: $!";
my $tcp = IO::Socket::INET->new(Listen => 16, LocalAddr => "127.0.0.1:$port", ReuseAddr => 1)
    or die "tcp: $!";
my $back = IO::Socket::INET->new(Proto => "udp", PeerAddr => "127.0.0.1:$server_port") or die $!;
open(my $log, ">>", $log_path) or die $!;
$log->autoflush(1);

my %asked_by; # id of the question => who asks

sub mode_of {
    my ($name) = @_;
    my $mode = "ok";
    open(my $file, "<", $modes) or return $mode;
    while (<$file>) {
        my ($pattern, $word) = split;
        next unless defined $word;
        $mode = $word if $pattern eq "*";
        return $word if $pattern eq $name;
    }
    return $mode;
}

sub question_of {
    my ($query) = @_;
    my ($at, @labels) = (12);
    while ((my $n = ord substr($query, $at, 1)) > 0) {
        push @labels, lc substr($query, $at + 1, $n);
        $at += $n + 1;
    }
    my $type = unpack("n", substr($query, $at + 1, 2));
    return (join(".", @labels), $type, substr($query, 0, $at + 5));
}

# The question back, as an answer without records.
sub answer {
    my ($question, $rcode, $flags) = @_;
    my ($id, $asked) = unpack("nn", $question);
    return pack("n6", $id, 0x8080 | ($asked & 0x0100) | ($flags // 0) | $rcode, 1, 0, 0, 0)
        . substr($question, 12);
}

sub on_udp {
    my $from = $udp->recv(my $query, 4096) or return;
    return if length($query) < 17;
    my ($name, $type, $question) = question_of($query);
    my $mode = mode_of($name);
    print $log "$name $type\n";
    if ($mode eq "random") {
        $mode = rand() < 0.5 ? "ok" : (qw(servfail refused truncated empty))[rand 4];
    }
    my %said = (servfail => 2, refused => 5, nxdomain => 3, empty => 0);
    if (exists $said{$mode}) {
        $udp->send(answer($question, $said{$mode}), 0, $from);
    } elsif ($mode eq "truncated" || $mode eq "tcp") {
        $udp->send(answer($question, 0, 0x0200), 0, $from);
    } elsif ($mode eq "ok") {
        $asked_by{unpack("n", $query)} = $from;
        $back->send($query);
    }
}

sub on_back {
    my $reply;
    defined $back->recv($reply, 65535) or return;
    my $to = delete $asked_by{unpack("n", $reply)} or return;
    $udp->send($reply, 0, $to);
}

sub on_tcp {
    my $client = $tcp->accept or return;
    $client->sysread(my $data, 4096) or return;
    return if length($data) < 19;
    my ($name) = question_of(substr($data, 2));
    return if mode_of($name) ne "tcp";
    my $server = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$server_port") or return;
    $server->syswrite($data);
    my $reply;
    $server->sysread($reply, 65537) and $client->syswrite($reply);
}

my %on = (fileno($udp) => \&on_udp, fileno($back) => \&on_back, fileno($tcp) => \&on_tcp);
my $select = IO::Select->new($udp, $back, $tcp);
$SIG{PIPE} = "IGNORE";
while (my @ready = $select->can_read) {
    $on{fileno $_}->() for @ready;
}
