-- Health of a NodeNicState from its conditions.
local function condition(kind)
  for _, one in ipairs((obj.status or {}).conditions or {}) do
    if one.type == kind then
      return one
    end
  end
  return {}
end

local function health(status, message)
  return { status = status, message = message or "" }
end

local ready = condition("Ready")
if ready.status == nil then
  return health("Progressing", "the node's agent has not reported yet")
end
for _, kind in ipairs({ "RolledBack", "Degraded" }) do
  if condition(kind).status == "True" then
    return health("Degraded", condition(kind).message)
  end
end
-- A plan that waits for VMs to let go of VFs is nothing to wait for here: it may take days.
if ready.status == "True" or condition("Blocked").status == "True" then
  return health("Healthy", ready.message)
end
return health("Progressing", ready.message)
