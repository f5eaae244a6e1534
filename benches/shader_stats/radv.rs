//! Mesa's driver for AMD with a null device, asked for its compiler's statistics. wgpu refuses such a
//! device, so this goes to Vulkan directly.

use std::collections::BTreeMap;
use std::ffi::CStr;

use ash::vk;
use fathom::gpu::{Kernel, shader};
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module};

/// Numbers by the driver's names for them.
pub type Stats = BTreeMap<String, u64>;

/// A device of which only the compiler is there.
pub struct Chip {
    _entry: ash::Entry,
    instance: ash::Instance,
    physical: vk::PhysicalDevice,
    device: ash::Device,
    statistics: ash::khr::pipeline_executable_properties::Device,
    /// Whether it has cooperative matrices.
    pub matrices: bool,
}

impl Chip {
    /// Opens the first device, if it is a null device of RADV's.
    pub fn open() -> Result<Self, String> {
        let family = std::env::var("RADV_FORCE_FAMILY")
            .map_err(|_| "set RADV_FORCE_FAMILY (navi31) and VK_DRIVER_FILES".to_owned())?;
        let told = |e: vk::Result| format!("Vulkan: {e} (RADV_FORCE_FAMILY={family})");
        // SAFETY: the calls follow each other as Vulkan asks: objects are made from those before, of
        // features and extensions that RADV has, and all outlive the process's use of them.
        unsafe {
            let entry = ash::Entry::load().map_err(|e| format!("no Vulkan loader: {e}"))?;
            let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let desc = vk::InstanceCreateInfo::default().application_info(&app);
            let instance = entry.create_instance(&desc, None).map_err(told)?;
            let found = instance.enumerate_physical_devices().map_err(told)?;
            let physical = *found.first().ok_or("no device; is VK_DRIVER_FILES RADV's?")?;
            let queues = [vk::DeviceQueueCreateInfo::default()
                .queue_family_index(0)
                .queue_priorities(&[1.0])];
            let mut extensions = vec![vk::KHR_PIPELINE_EXECUTABLE_PROPERTIES_NAME.as_ptr()];
            let has = instance.enumerate_device_extension_properties(physical).map_err(told)?;
            let wanted = vk::KHR_COOPERATIVE_MATRIX_NAME;
            let matrices = has.iter().any(|e| e.extension_name_as_c_str() == Ok(wanted));
            if matrices {
                extensions.push(wanted.as_ptr());
            }
            let mut cooperative = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default()
                .cooperative_matrix(matrices);
            let mut memory_model = vk::PhysicalDeviceVulkan12Features::default()
                .vulkan_memory_model(true)
                .shader_float16(matrices)
                .vulkan_memory_model_device_scope(true);
            let mut dot = vk::PhysicalDeviceVulkan13Features::default()
                .shader_integer_dot_product(true)
                .subgroup_size_control(true);
            let mut info = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
                .pipeline_executable_info(true);
            let desc = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&extensions)
                .push_next(&mut memory_model)
                .push_next(&mut dot)
                .push_next(&mut info);
            let desc = if matrices { desc.push_next(&mut cooperative) } else { desc };
            let device = instance.create_device(physical, &desc, None).map_err(told)?;
            let statistics =
                ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Self { _entry: entry, instance, physical, device, statistics, matrices })
        }
    }

    /// The chip's name.
    pub fn name(&self) -> String {
        // SAFETY: the device is this instance's.
        let told = unsafe { self.instance.get_physical_device_properties(self.physical) };
        told.device_name_as_c_str().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The driver's name and version.
    pub fn driver(&self) -> String {
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut told = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        // SAFETY: the device is this instance's, and of Vulkan 1.2 or later.
        unsafe { self.instance.get_physical_device_properties2(self.physical, &mut told) };
        let text =
            |t: Result<&CStr, _>| t.map_or(String::new(), |t| t.to_string_lossy().into_owned());
        format!("{} ({})", text(driver.driver_name_as_c_str()), text(driver.driver_info_as_c_str()))
    }

    /// Compiles a kernel as it ships, and tells what came of it.
    pub fn compile(&self, kernel: &Kernel) -> Stats {
        let wgsl = shader::specialise(kernel.shader, &kernel.flags, &kernel.consts);
        let module = naga::front::wgsl::parse_str(&wgsl).expect("shaders parse");
        let bindings: Vec<_> = module
            .global_variables
            .iter()
            .filter_map(|(_, v)| v.binding.map(|b| layout(b.binding, v.space)))
            .collect();
        let words = spirv(&module);
        // SAFETY: the SPIR-V is naga's, of a module it found valid, and the layout is the module's
        // own. Every object made here is destroyed here, after its last use.
        unsafe {
            let (device, name) = (&self.device, c"main");
            let desc = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set = device.create_descriptor_set_layout(&desc, None).expect("a layout");
            let sets = [set];
            let desc = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = device.create_pipeline_layout(&desc, None).expect("a layout");
            let desc = vk::ShaderModuleCreateInfo::default().code(&words);
            let code = device.create_shader_module(&desc, None).expect("SPIR-V");
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(code)
                .name(name);
            let desc = vk::ComputePipelineCreateInfo::default()
                .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
                .stage(stage)
                .layout(layout);
            let made = device
                .create_compute_pipelines(vk::PipelineCache::null(), &[desc], None)
                .unwrap_or_else(|e| panic!("{kernel:?}: {}", e.1));
            let what =
                vk::PipelineExecutableInfoKHR::default().pipeline(made[0]).executable_index(0);
            let told =
                self.statistics.get_pipeline_executable_statistics(&what).expect("statistics");
            device.destroy_pipeline(made[0], None);
            device.destroy_shader_module(code, None);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(set, None);
            told.iter().filter_map(|s| Some((name_of(s)?, count(s)))).collect()
        }
    }
}

fn layout(binding: u32, space: AddressSpace) -> vk::DescriptorSetLayoutBinding<'static> {
    let ty = match space {
        AddressSpace::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
        _ => vk::DescriptorType::STORAGE_BUFFER,
    };
    vk::DescriptorSetLayoutBinding::default()
        .binding(binding)
        .descriptor_count(1)
        .descriptor_type(ty)
        .stage_flags(vk::ShaderStageFlags::COMPUTE)
}

fn spirv(module: &Module) -> Vec<u32> {
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(module)
        .expect("shaders are valid");
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: (1, 6),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            ..BoundsCheckPolicies::default()
        },
        // As Fathom has wgpu do.
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..spv::Options::default()
    };
    spv::write_vec(module, &info, &options, None).expect("shaders translate")
}

fn name_of(s: &vk::PipelineExecutableStatisticKHR<'_>) -> Option<String> {
    s.name_as_c_str().ok().map(|n| n.to_string_lossy().into_owned())
}

fn count(s: &vk::PipelineExecutableStatisticKHR<'_>) -> u64 {
    // SAFETY: the format says which of the union's numbers is meant; those of RADV are u64.
    match s.format {
        vk::PipelineExecutableStatisticFormatKHR::UINT64 => unsafe { s.value.u64 },
        _ => 0,
    }
}
