#!/bin/bash
# SPDX-License-Identifier: MIT
# Code that has taken over a worker cannot change the configuration maps.
. "$(dirname "$0")/../lib/harness.sh"
. "$ROOT/tests/lib/site.sh"

start_backend a
start_backend b
start_backend c
start_durpinad
free_port
port=$ret_port
start_nginx web 1 < <(foo_site "$port")

# Defines mappings: the maps as this worker has them, {from, to, permissions}.
prelude='
local ffi = require "ffi"
pcall(ffi.cdef, [[
    int mprotect(void *addr, size_t len, int prot);
    void *mmap(void *addr, size_t len, int prot, int flags, int fd, long off);
    int open(const char *path, int flags, ...);
    long pwrite(int fd, const void *buf, size_t n, long off);
    long syscall(long number, ...);
    int getpid(void);
]])
local mappings = {}
for line in io.lines("/proc/self/maps") do
    local from, to, perms = line:match("^(%x+)%-(%x+) (%S+) .*bpf.map")
    if from then
        mappings[#mappings + 1] = { from = tonumber(from, 16), to = tonumber(to, 16),
                                    perms = perms, range = from .. "-" .. to }
    end
end
local function errno() return ffi.errno() end
local function address(m) return ffi.cast("void *", m.from) end
local RW, SHARED, O_RDWR = 3, 1, 2
-- Runs try(mapping) on each read only mapping; lists the errnos, "WRITTEN" where it worked.
local function each(try)
    local seen, list = {}, {}
    for _, m in ipairs(mappings) do
        if m.perms == "r--s" then
            local result = try(m) and "WRITTEN" or "errno " .. errno()
            if not seen[result] then
                seen[result] = true
                list[#list + 1] = result
            end
        end
    end
    return table.concat(list, ", ")
end
'

attempt() {
    lua "$port" "$prelude $1"
}

is "five_maps_are_read_only_and_three_writable" "$(attempt '
    local n = {}
    for _, m in ipairs(mappings) do n[m.perms] = (n[m.perms] or 0) + 1 end
    return n["r--s"], n["rw-s"]')" "true 5 3"
is "mprotect_is_refused" "$(attempt '
    return each(function(m) return ffi.C.mprotect(address(m), m.to - m.from, RW) == 0 end)')" \
    "true errno 13"
is "positive_control_mprotect_works_on_counters" "$(attempt '
    for _, m in ipairs(mappings) do
        if m.perms == "rw-s" then return ffi.C.mprotect(address(m), m.to - m.from, RW) end
    end')" "true 0"
like "writing_through_proc_mem_is_refused" "$(attempt '
    return each(function(m)
        local fd = ffi.C.open("/proc/self/mem", O_RDWR)
        return fd >= 0 and ffi.C.pwrite(fd, "x", 1, m.from) == 1
    end)')" "^true errno (1|5|13)$"
like "mapping_it_again_from_map_files_is_refused" "$(attempt '
    return each(function(m)
        local fd = ffi.C.open("/proc/self/map_files/" .. m.range, O_RDWR)
        return fd >= 0 and
            ffi.cast("long", ffi.C.mmap(nil, m.to - m.from, RW, SHARED, fd, 0)) ~= -1
    end)')" "^true errno (1|13)$"
is "process_vm_writev_is_refused" "$(attempt '
    return each(function(m)
        local iov = ffi.new("uint64_t[4]")
        local byte = ffi.new("char[1]", 1)
        iov[0], iov[1] = ffi.cast("uint64_t", ffi.cast("uintptr_t", byte)), 1
        iov[2], iov[3] = m.from, 1
        local NR_process_vm_writev = jit.arch == "x64" and 311 or 271
        return ffi.C.syscall(NR_process_vm_writev, ffi.cast("long", ffi.C.getpid()), iov,
                             ffi.cast("long", 1), iov + 2, ffi.cast("long", 1),
                             ffi.cast("long", 0)) == 1
    end)')" "true errno 14"
like "no_map_can_be_opened_from_its_pin" "$(attempt "
    local attr = ffi.new('uint64_t[16]')
    local path = ffi.new('char[256]', '$PIN/peers')
    attr[0] = ffi.cast('uint64_t', ffi.cast('uintptr_t', path))
    local NR_bpf, OBJ_GET = jit.arch == 'x64' and 321 or 280, 7
    return each(function()
        return ffi.C.syscall(NR_bpf, ffi.cast('long', OBJ_GET), attr, ffi.cast('long', 128)) >= 0
    end)")" "^true errno (1|13)$"
is "no_descriptor_of_a_map_is_left_in_the_worker" "$(attempt '
    local n = 0
    for fd = 0, 1023 do
        local f = io.open("/proc/self/fdinfo/" .. fd)
        if f then
            if f:read("*a"):find("map_type") then n = n + 1 end
            f:close()
        end
    end
    return n')" "true 0"
is "traffic_goes_on" "$(tally 10 1 "http://127.0.0.1:$port/")" "a=5 b=3 c=2"
done_testing
