-- Lua of the library runs in nginx (LuaJIT); test scripts do too.
std = "ngx_lua"
max_line_length = 100
unused_args = true
