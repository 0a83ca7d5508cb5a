# For CMake builds against ROS 2 from Python wheels; a ROS distribution does not need it. Passed as CMAKE_PROJECT_INCLUDE.
#
# The targets that the wheels export name include folders of the machine they were built on. CMake refuses a target
# whose include folder does not exist, so those folders are dropped once all targets have been imported.

function(drop_missing_include_folders)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT folders)
      continue()
    endif()
    set(kept)
    foreach(folder IN LISTS folders)
      # Generator expressions are resolved later and name folders of this build.
      if(folder MATCHES "^\\$<" OR EXISTS "${folder}")
        list(APPEND kept "${folder}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${kept}")
  endforeach()
endfunction()

cmake_language(DEFER CALL drop_missing_include_folders)
